"""Upsampling class scores: this project's forms against XLA's transposed convolutions.

python benchmarks/upsampling.py [--classes=21] [--rounds=5]

Frozen bilinear (two matrix products) and learned (one of all 2x2 windows, and a
depth-to-space), each against the same thing as an input-dilated convolution, at the
sizes of the reference nets for a 500 x 500 image. The forms run in turn; results are
compared; medians and the ratio are printed.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.models import upsampling

# Name, cells, stride: the last upsampling of the reference nets.
LAYERS = (("FCN-32s upscore", 16, 32), ("FCN-16s upscore16", 34, 16))
LAYERS += (("FCN-8s upscore8", 70, 8), ("FCN-8s upscore2", 16, 2))
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def dense(x, kernel):
    """XLA's transposed convolution: Caffe's orientation is the flipped kernel."""
    k = kernel.shape[0]
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(k - 1, k - 1)] * 2,
        lhs_dilation=(k // 2, k // 2),
        dimension_numbers=DIMENSIONS,
    )


def seconds(function, *args):
    """One call, finished."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"{'':<20}{'pass':<10}{'form':<10}{'ours':>10}{'XLA':>10}  ratio  difference")
    for name, cells, stride in LAYERS:
        size = ((cells + 1) * stride,) * 2
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(1, cells, cells, args.classes)), jnp.float32)
        shape = (2 * stride, 2 * stride, args.classes, args.classes)
        kernel = upsampling.bilinear_kernel_init(None, shape)
        forms = {
            "frozen": (
                lambda x, k, s=stride, n=size: upsampling.transposed_bilinear(
                    x, s, 0, n
                ),
                dense,
                (0,),
            ),
            "learned": (
                lambda x, k, n=size: upsampling.transposed_conv(x, k, 0, n),
                dense,
                (0, 1),
            ),
        }
        for form, (ours, xla, wrt) in forms.items():
            for kind in ("forward", "gradient"):
                pair = []
                for function in (ours, xla):
                    if kind == "gradient":
                        function = jax.grad(
                            lambda x, k, f=function: (f(x, k) ** 2).sum(), wrt
                        )
                    pair.append(jax.jit(function))
                a, b = (jax.tree.leaves(f(x, kernel)) for f in pair)
                worst = max(
                    float(jnp.abs(p - q).max() / jnp.abs(q).max())
                    for p, q in zip(a, b, strict=True)
                )
                times = [
                    [seconds(f, x, kernel) for f in pair] for _ in range(args.rounds)
                ]
                mine, theirs = (statistics.median(t) for t in zip(*times, strict=True))
                print(
                    f"{name:<20}{kind:<10}{form:<10}{1e3 * mine:>7.1f} ms"
                    f"{1e3 * theirs:>7.0f} ms{theirs / mine:>7.1f}  {worst:.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
