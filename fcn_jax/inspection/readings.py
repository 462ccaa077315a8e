"""What the values of masks may mean, with the evidence and the setting for it."""

import dataclasses
from collections.abc import Mapping, Sequence

from fcn_jax.data import label_map, labels

MIXED = "binary, 0 and 1 or 255"  # A title.
_VOID = labels.IGNORE


@dataclasses.dataclass(frozen=True)
class Reading:
    """One meaning that the values may have.

    Attributes:
        title: Its name, such as "class ids as they are".
        ids: The class id of each value that occurs; 255 for void.
        label_map: The setting that says so; "" if none is needed.
        num_classes: Classes that there then are.
        evidence: What speaks for it, a few words each.
        colours: Whether the values are colours, 0xRRGGBB.
    """

    title: str
    ids: Mapping[int, int]
    label_map: str
    num_classes: int
    evidence: Sequence[str]
    colours: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The readings, likeliest first; or none, and why.

    Attributes:
        readings: The meanings that are possible.
        fault: A kind of finding, if there is none.
        message: What was found instead.
    """

    readings: Sequence[Reading] = ()
    fault: str = ""
    message: str = ""


def stated(text_map: label_map.LabelMap, by_user: bool) -> Reading:
    """What the user says, or else the folder's labelmap.txt, which needs no setting."""
    return Reading(
        f"as stated by {'--label_map' if by_user else 'labelmap.txt'}",
        text_map.ids,
        str(text_map) if by_user else "",
        text_map.num_classes,
        [],
        text_map.colours,
    )


def unchanged(
    ids: list[int], values: list[int], num_classes: int, source: str
) -> Reading:
    """Class ids that need no map; 255 is void."""
    evidence = [f"{span(ids)} of {num_classes} classes, {source}"]
    same = {value: value for value in ids}
    if _VOID in values:
        evidence.append("255 is void")
        same[_VOID] = _VOID
    return Reading("class ids as they are", same, "", num_classes, evidence)


def shifted(
    title: str, ids: list[int], values: list[int], evidence: Sequence[str]
) -> Reading:
    """Ids counted from 1; 0 and 255 are void, where they occur."""
    mapping = {value: value - 1 for value in range(1, ids[-1] + 1)}
    mapping |= {value: _VOID for value in values if value in (0, _VOID)}
    return make(title, mapping, evidence)


def mapped(
    title: str,
    order: Sequence[int],
    evidence: Sequence[str],
    values: Sequence[int] = (),
    *,
    colours: bool = False,
) -> Reading:
    """Values numbered in an order; others, which can only be 255, are void."""
    ids = {value: i for i, value in enumerate(order)}
    ids |= {value: _VOID for value in values if value not in ids}
    return make(title, ids, evidence, colours=colours)


def make(
    title: str,
    ids: Mapping[int, int],
    evidence: Sequence[str],
    *,
    colours: bool = False,
) -> Reading:
    """A reading by the id of each value; its setting is the shortest that says so."""
    stated = label_map.LabelMap(dict(ids), colours)
    return Reading(title, ids, str(stated), stated.num_classes, evidence, colours)


def as_colours(reading: Reading) -> Reading:
    """The reading of greys, for files that store them as colours."""
    ids = {value * 0x010101: i for value, i in reading.ids.items()}
    evidence = [*reading.evidence, "greys stored as RGB"]
    return make(reading.title, ids, evidence, colours=True)


def show_colour(colour: int) -> str:
    """The text of a colour, such as "#ff0000"."""
    return f"#{colour:06x}"


def span(ids: Sequence[int]) -> str:
    """Shows ids as "0-10" or "0, 38, 75, 113, ..., 217, 225"."""
    if len(ids) > 2 and list(ids) == list(range(ids[0], ids[-1] + 1)):
        return f"{ids[0]}-{ids[-1]}"
    shown = ids if len(ids) <= 8 else [*ids[:4], "...", *ids[-2:]]
    return ", ".join(map(str, shown))
