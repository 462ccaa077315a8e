"""What the values of masks can mean, told from the values that occur.

Nothing is applied here: a reading is a proposal with its evidence. Void is 255.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fcn_jax.data import labels
from fcn_jax.inspection.readings import (
    MIXED,
    Reading,
    Verdict,
    as_colours,
    make,
    mapped,
    shifted,
    show_colour,
    span,
    unchanged,
)

MOST_COLOURS = 64  # More different values are no classes but smoothing.
_VOID = labels.IGNORE
_WHITE = 0xFFFFFF


def recognise(
    kind: str,
    pixels: Mapping[int, int],
    num_names: int | None,
    values_a_mask: float,
    together: bool = True,
) -> Verdict:
    """Tells what the values of masks with one value a pixel can mean.

    Args:
        kind: "grey" or "colour" (values are then 0xRRGGBB).
        pixels: The number of pixels of each value, over all masks.
        num_names: The number of named classes; None if no list names them.
        values_a_mask: The mean number of different values in a mask.
        together: Whether a mask has both 1 and 255.
    """
    if set(pixels) == {0, 1, _VOID} and not together and num_names in (None, 2):
        ids = {0: 0, 1: 1, _VOID: 1}
        evidence = ["no mask has both 1 and 255"]
        as_is = unchanged([0, 1], [0, 1, _VOID], 2, "if 255 is void")
        return Verdict([make(MIXED, ids, evidence), as_is])
    if kind == "grey":
        return _grey(pixels, num_names, values_a_mask)
    if all(_is_grey(colour) for colour in pixels):
        verdict = _grey(
            {colour & 255: n for colour, n in pixels.items()}, num_names, values_a_mask
        )
        return dataclasses.replace(
            verdict, readings=[as_colours(r) for r in verdict.readings]
        )
    return _colour(pixels, num_names, values_a_mask)


def recognise_binary(kind: str, pixels: Mapping[int, int], together: bool) -> Verdict:
    """The same for the binary masks of a multilabel set: 0 absent, 1 present."""
    values = set(pixels)
    if values == {0, 1, _VOID} and together and kind == "grey":
        evidence = ["masks have both 1 and 255"]
        return Verdict([mapped("1 present, 255 void", [0, 1], evidence, [0, 1, _VOID])])
    if kind == "colour":
        present = values - {0}
        if len(present) != 1:
            return _unclear(pixels, kind)
        return Verdict([mapped("two colours", [0, *present], [], colours=True)])
    if values <= {0, 1, _VOID}:
        present = " or ".join(str(value) for value in sorted(values - {0})) or "1"
        title = f"0 absent, {present} present"
        ids = {value: int(value > 0) for value in values}
        return Verdict([Reading(title, ids, "", 2, [])])
    if len(values) == 2:
        low, high = sorted(values)
        evidence = [f"only {low} and {high} occur"]
        return Verdict([mapped(f"{low} absent, {high} present", [low, high], evidence)])
    return _unclear(pixels, kind)


def _grey(
    pixels: Mapping[int, int], num_names: int | None, values_a_mask: float
) -> Verdict:
    values = sorted(pixels)
    ids = [value for value in values if value != _VOID]
    if len(values) == 1 and (num_names is None or not ids):
        message = f"all masks hold only the value {values[0]}"
        return Verdict(fault="encoding", message=message)
    if len(ids) == 1 and _VOID in pixels:
        title = f"binary, {ids[0]} and 255"
        return Verdict([mapped(title, values, ["only these two occur"])])
    if num_names is not None:
        fitting = [value for value in ids if 0 <= value < num_names]
        others = sum(pixels[value] for value in set(ids) - set(fitting))
        # A few stray values are faults of some masks, and no other encoding.
        few = others < 0.01 * sum(pixels.values()) and ids[-1] != num_names
        if fitting and few and len(fitting) > 1:
            return Verdict([unchanged(fitting, values, num_names, "by classes.txt")])
    if _is_smeared(pixels, values_a_mask):
        return _unclear(pixels, "grey")
    if num_names is not None:
        return _unlike_the_names(pixels, ids, values, num_names)
    return _without_names(pixels, ids, values)


def _unlike_the_names(
    pixels: Mapping[int, int], ids: list[int], values: list[int], num_names: int
) -> Verdict:
    """Where the values are not 0 to the number of named classes less 1."""
    named = f"classes.txt names {num_names}"
    if ids[-1] == num_names and ids[0] >= 0:
        if ids[0] > 0:
            evidence = [
                named,
                f"the values are {span(ids)}, and 0 never occurs",
            ]
            return Verdict([shifted("counted from 1", ids, values, evidence)])
        evidence = [named, f"the values run to {num_names}", _share(pixels, 0)]
        reading = shifted("0 is void (reduce_zero_label)", ids, values, evidence)
        other = unchanged(
            ids,
            values,
            num_names + 1,
            "if 0 is a class: name it in the first line of classes.txt",
        )
        return Verdict([reading, other])
    for which, note in ((values, ""), (ids, "; 255 is void")):
        if len(which) == num_names:
            evidence = [f"{named}, and so many values occur{note}"]
            return Verdict([mapped("grey levels, in order", which, evidence, values)])
    return Verdict(
        fault="encoding",
        message=f"{named}, but the masks hold {span(ids)}"
        + (" and 255" if _VOID in pixels else ""),
    )


def _without_names(
    pixels: Mapping[int, int], ids: list[int], values: list[int]
) -> Verdict:
    contiguous = ids == list(range(ids[0], ids[0] + len(ids))) and len(ids) > 1
    most = max(ids, key=pixels.get)
    if contiguous and ids[0] == 0:
        found = [unchanged(ids, values, len(ids), "without a gap")]
        few = pixels[0] < 0.05 * sum(pixels.values()) and most != 0
        if _VOID not in pixels and len(ids) > 2 and (few or len(ids) == 151):
            evidence = [_share(pixels, 0), "255, the usual void, never occurs"]
            found.append(
                shifted("0 is void (reduce_zero_label)", ids, values, evidence)
            )
        return Verdict(found)
    if contiguous and ids[0] == 1:
        evidence = ["no gap, and 0 never occurs (0 as void would give the same map)"]
        source = "to be named in classes.txt, since class 0 never occurs"
        other = unchanged(ids, values, len(ids) + 1, source)
        return Verdict([shifted("counted from 1", ids, values, evidence), other])
    if len(values) > MOST_COLOURS and 2 * len(ids) < ids[-1]:
        return _unclear(pixels, "grey")
    for which in (values, ids):
        if len(which) > 1 and (step := _even_step(which)):
            evidence = [f"{len(which)} levels, evenly spaced by {step:.4g}"]
            found = [mapped("spread grey levels", which, evidence, values)]
            if _VOID in which and len(which) > 2:
                evidence = ["255 is the usual void"]
                found.append(mapped("grey levels, 255 void", ids, evidence, values))
            return Verdict(found)
    compact = mapped("only the values that occur", ids, ["gaps closed"], values)
    if ids[-1] < _VOID:
        source = "to be named in classes.txt, since some never occur"
        return Verdict([compact, unchanged(ids, values, ids[-1] + 1, source)])
    return Verdict([compact])


def _colour(
    pixels: Mapping[int, int], num_names: int | None, values_a_mask: float
) -> Verdict:
    if len(pixels) > MOST_COLOURS or _is_smeared(pixels, values_a_mask):
        return _unclear(pixels, "colour")
    palette = labels.voc_palette().astype(int) @ [1 << 16, 1 << 8, 1]
    of_voc = {int(palette[i]): i for i in (*range(21), _VOID)}
    order = sorted(pixels, key=lambda colour: (colour != 0, -pixels[colour], colour))
    void_colour = int(palette[_VOID])
    if set(pixels) <= set(of_voc) and (num_names == 21 or void_colour in pixels):
        evidence = ["all colours are of PASCAL VOC's palette"]
        return Verdict([make("PASCAL VOC's colours", of_voc, evidence, colours=True)])
    evidence = [f"{len(order)} colours; ids by frequency, black first"]
    if num_names is not None:
        evidence.append("look whether the order is that of classes.txt")
    if num_names is None or len(order) <= num_names:
        count = num_names or len(order)
        reading = mapped("colours", order, evidence, colours=True)
        return Verdict([dataclasses.replace(reading, num_classes=count)])
    if len(order) == num_names + 1:
        voids = [c for c in (_WHITE, void_colour, 0) if c in pixels] or order[-1:]
        found = []
        for void in voids:
            left = [colour for colour in order if colour != void]
            because = [
                *evidence,
                f"one colour more than names: {show_colour(void)} is void",
            ]
            ids = {c: i for i, c in enumerate(left)} | {void: _VOID}
            found.append(make("colours, one void", ids, because, colours=True))
        return Verdict(found)
    return Verdict(
        fault="encoding",
        message=f"classes.txt names {num_names} classes, but the masks hold "
        f"{len(order)} colours",
    )


def _is_smeared(pixels: Mapping[int, int], values_a_mask: float) -> bool:
    """Whether a few values have most pixels, and many have the rest."""
    total = sum(pixels.values())
    ends = pixels.get(0, 0) + pixels.get(_VOID, 0)
    if {0, _VOID} <= pixels.keys() and ends > 0.8 * total and len(pixels) > 8:
        return True
    top = sum(sorted(pixels.values())[-8:])
    return values_a_mask > 24 and top > 0.8 * total


def _unclear(pixels: Mapping[int, int], kind: str) -> Verdict:
    """Too many values; how much the most frequent of them cover."""
    total = sum(pixels.values())
    top = sorted(pixels, key=lambda v: -pixels[v])[:8]
    name = show_colour if kind == "colour" else str
    share = sum(pixels[v] for v in top) / total
    message = (
        f"{len(pixels)} different {kind} values or more; the {len(top)} most frequent "
        f"({', '.join(map(name, top))}) cover {share:.1%} of the pixels"
    )
    return Verdict(fault="antialiased", message=message)


def _even_step(values: Sequence[int]) -> float:
    """The step of evenly spaced values, up to rounding; 0 if they are not such."""
    step = (values[-1] - values[0]) / (len(values) - 1)
    ideal = values[0] + step * np.arange(len(values))
    even = values[0] == 0 and step >= 2 and np.abs(ideal - values).max() <= 1
    return step if even else 0


def _is_grey(colour: int) -> bool:
    return colour == (colour & 255) * 0x010101


def _share(pixels: Mapping[int, int], value: int) -> str:
    return f"{value} has {pixels[value] / sum(pixels.values()):.2%} of the pixels"
