"""What the reference recipe costs: seconds and memory of a step and of a scored image.

python benchmarks/reference_cost.py [--config=CONFIG] [--steps=5]

Full-width network, random weights and images, one image on the 500 x 500 canvas of
VOC2012, in the config's precision. Memory: the device's peak, on a CPU the process's.
"""

import argparse
import functools
import resource
import runpy
import statistics
import time

import jax
import numpy as np

from fcn_jax.evaluation import evaluate
from fcn_jax.training import optim, setup
from fcn_jax.training import state as state_lib
from fcn_jax.training import step as step_lib

CANVAS = (500, 500)


def peak_gib():
    """Highest memory so far, of the device or else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30


def main():
    """Prints both costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/reference/voc_fcn8s.py")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    config = runpy.run_path(args.config)["get_config"]()
    model = setup.make_model(config, 21)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (1, *CANVAS, 3), np.uint8),
        "size": np.array([[375, 500]], np.int32),
        "label": rng.integers(0, 21, (1, *CANVAS), np.uint8),
    }
    shapes = jax.eval_shape(
        lambda k: state_lib.init_variables(model, k), jax.random.key(0)
    )
    trainable = optim.trainable_mask(shapes["params"], config.trainable)
    _, tx = setup.make_optimizer(config, trainable)
    step = step_lib.make_train_step(
        model,
        tx,
        trainable=trainable,
        loss=setup.make_loss(config),
        reduction=config.loss.reduction,
    )
    print(f"{args.config}, jax {jax.__version__}, {jax.devices()[0].device_kind}")

    init = jax.jit(lambda k: state_lib.init_variables(model, k))
    variables = init(jax.random.key(0))
    score = jax.jit(
        lambda v, b: evaluate.logits(
            model, v, b["image"], b["size"], None, CANVAS
        ).argmax(-1)
    )
    report("a scored image", functools.partial(score, variables, batch), args.steps)
    state = jax.jit(lambda k: state_lib.create(model, tx, k))(jax.random.key(0))

    def train():
        nonlocal state
        state, scalars = step(state, batch, jax.random.key(1))
        return scalars

    report("a training step", train, args.steps)


def report(name, function, steps):
    """Times a function after one call that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    print(
        f"{name}: {statistics.median(times):.3f} s "
        f"({min(times):.3f} to {max(times):.3f}), peak {peak_gib():.1f} GiB so far",
        flush=True,
    )


if __name__ == "__main__":
    main()
