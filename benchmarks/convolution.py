"""Convolutions and poolings of VGG-16: the forms chosen here against XLA's own.

    python -m benchmarks.convolution [--size 573 698] [--batch=1] [--width=1]

Milliseconds of the output and of the gradients by input and by kernel, layer by layer,
for an image of the size given (573 x 698 is 375 x 500 with the reference's border). The
forms run in turn; results are compared. On accelerators both are XLA's own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from fcn_jax import memory
from fcn_jax.models import convolution, pooling, vgg

TOLERANCE = 5e-5  # Of the largest; XLA's own sums of 400,000 products are off by half.


def layers(size: tuple[int, int], batch: int, width: float):
    """Name, our form, XLA's own, shapes of the arguments; layers of new shapes only."""
    height, columns = size
    channels, seen = 3, set()

    def scaled(count):
        return max(1, round(count * width))

    def conv(name, k, c_in, c_out, padding):
        shapes = ((batch, height, columns, c_in), (k, k, c_in, c_out))
        forms = (convolution.conv2d, convolution._native)
        return name, *(functools.partial(f, padding=padding) for f in forms), shapes

    for block, count in enumerate(vgg.BLOCKS[16], 1):
        for i in range(1, count + 1):
            out = scaled(vgg.CHANNELS[block - 1])
            if (block, channels) not in seen:
                yield conv(f"conv{block}_{i}", 3, channels, out, "SAME")
            seen.add((block, channels))
            channels = out
        shape = (batch, height, columns, channels)
        yield f"pool{block}", pooling.max_pool, pooling._native, (shape,)
        height, columns = -(-height // 2), -(-columns // 2)
    head = scaled(vgg.HEAD_CHANNELS)
    yield conv("fc6", 7, channels, head, "VALID")
    height, columns = height - 6, columns - 6
    yield conv("fc7", 1, head, head, "SAME")


def parts(form, shapes):
    """Functions of (arguments, gradient), by what they compute."""
    names = {"by input": 0, "by kernel": 1}
    yield "output", jax.jit(lambda arguments, _: form(*arguments))
    for name, place in names.items():
        if place < len(shapes):

            def gradient(arguments, outer, place=place):
                def of_one(x):
                    return form(*arguments[:place], x, *arguments[place + 1 :])

                return jax.vjp(of_one, arguments[place])[1](outer)[0]

            yield name, jax.jit(gradient)


def main() -> None:
    """Prints a table and writes the rows."""
    parser = measure.parser(__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(573, 698))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=float, default=1.0, help="as model.width")
    args = parser.parse_args()
    memory.keep_freed()
    if min(args.size) < 193:
        parser.error(f"--size is {args.size}; below 193 nothing is left for fc6.")
    rng = np.random.default_rng(0)
    rows = []
    for name, ours, xla, shapes in layers(tuple(args.size), args.batch, args.width):
        # A pooling sees what a ReLU has left.
        draws = [rng.standard_normal(shape, np.float32) for shape in shapes]
        draws[0] = np.maximum(draws[0], 0)
        arguments = [jnp.asarray(draw) for draw in draws]
        out = jax.eval_shape(ours, *arguments).shape
        outer = jnp.asarray(rng.standard_normal(out, np.float32))
        pairs = zip(parts(ours, shapes), parts(xla, shapes), strict=True)
        for (part, a), (_, b) in pairs:
            row = compare(name, part, (a, b), arguments, outer, args.rounds)
            rows.append(row | {"shape": list(shapes[0])})
    measure.write(args.json, rows)


def compare(name, part, forms, arguments, outer, rounds) -> dict:
    """Times both forms in turn; returns a row."""
    a, b = (np.asarray(form(arguments, outer)) for form in forms)
    worst = float(abs(a - b).max() / abs(b).max())
    if not worst <= TOLERANCE:
        raise SystemExit(f"{name}, {part}: the forms differ by {worst:.1e}.")
    times = ([], [])
    for i in range(rounds):
        for which in ((0, 1), (1, 0))[i % 2]:
            seconds = measure.seconds(forms[which], arguments, outer)
            times[which].append(1e3 * seconds)
    ours, xla = map(measure.summary, times)
    ratio = ours["median"] / xla["median"]
    print(
        f"{name:<8}{part:<10}{measure.shown(ours, 'ms', 1):<30}"
        f"XLA's own {measure.shown(xla, 'ms', 1):<32}{ratio:.2f}  {worst:.0e}",
        flush=True,
    )
    return {
        "layer": name,
        "part": part,
        "ours": ours,
        "xla": xla,
        "ratio": ratio,
        "difference": worst,
    }


if __name__ == "__main__":
    main()
