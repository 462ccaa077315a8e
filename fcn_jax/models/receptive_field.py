"""How far a network looks: the input pixels that the score of a pixel depends on.

Found by going back through the layers, from an interval of outputs to the interval of
inputs that they are computed from. Every layer does the same to rows and columns, so
one dimension tells all. The intervals are those of an unbounded image; near a border
they only reach beyond it. Far pixels weigh little (Luo et al., "Understanding the
Effective Receptive Field", NIPS 2016); here they count in full.
"""

from fcn_jax.models import fcn, vgg

# The grid of the coarsest layer, in pixels: what is moved by a multiple of this meets
# the same cells.
ALIGNMENT = 32

Interval = tuple[int, int]  # First and last, inclusive.


def reach(model: fcn.FCN) -> tuple[int, int]:
    """The largest distances, in pixels, to what a score depends on.

    Args:
        model: any network; the batch statistics are taken to be the recorded ones.

    Returns:
        How far before a pixel (above, to the left) and how far after it (below, to the
        right). Both are reached by some pixel.
    """
    seen = [(p, *pixels_seen(model, p)) for p in range(ALIGNMENT)]
    return max(p - first for p, first, _ in seen), max(last - p for p, _, last in seen)


def margin(model: fcn.FCN) -> int:
    """What a tile needs around the pixels that are kept of it: a multiple of 32.

    Two bilinear neighbours are allowed for, where logits are resized.
    """
    before, after = reach(model)
    return -(-max(before, after + 1) // ALIGNMENT) * ALIGNMENT


def pixels_seen(model: fcn.FCN, pixel: int) -> Interval:
    """The first and the last input pixel that the scores of a pixel depend on."""
    same = model.geometry == "same"
    offset = model.stride // 2 if same else fcn.LAST_OFFSETS[model.stride]
    cells = _before_upsampling((pixel + offset, pixel + offset), model.stride)
    seen = []
    for stride, pool in ((8, 3), (16, 4)):
        if model.stride <= stride:
            start = 0 if same else fcn.SKIP_OFFSETS[stride]
            seen.append(_before_pool(model, _moved(cells, start), pool))
            cells = _before_upsampling(_moved(cells, 1 if same else 0), 2)
    # fc6 is 7 cells wide; unpadded, its first output is in the middle of 0 .. 6.
    first, last = cells
    fc6 = (first - 3, last + 3) if same else (first, last + 6)
    seen.append(_before_pool(model, fc6, len(vgg.CHANNELS)))
    border = 0 if same else fcn.BORDER
    return min(a for a, _ in seen) - border, max(b for _, b in seen) - border


def _moved(interval: Interval, by: int) -> Interval:
    return interval[0] + by, interval[1] + by


def _before_upsampling(interval: Interval, stride: int) -> Interval:
    """Of a transposed convolution: cell ``i`` reaches ``[i * s, i * s + 2 * s)``."""
    return interval[0] // stride - 1, interval[1] // stride


def _before_pool(model: fcn.FCN, interval: Interval, pools: int) -> Interval:
    """Of the encoder's first blocks: 2x2 poolings, each after 3x3 convolutions."""
    first, last = interval
    for convolutions in reversed(vgg.BLOCKS[model.depth][:pools]):
        first, last = 2 * first - convolutions, 2 * last + 1 + convolutions
    return first, last
