"""The classes of a folder, and what the values of its masks mean."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from fcn_jax.data import classes as classes_lib
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.data import labels
from fcn_jax.errors import UserError
from fcn_jax.inspection import encodings, readings
from fcn_jax.inspection import listing as listing_lib
from fcn_jax.inspection import survey as survey_lib
from fcn_jax.inspection.findings import Findings


@dataclasses.dataclass(frozen=True)
class Classes:
    """What is known of the classes before the masks are looked at.

    Attributes:
        names: By id; empty if nobody named them.
        source: Where the names are from.
        label_map: What is said of the values: by the user, or by a labelmap.txt.
        stated: Whether the user said it.
    """

    names: Sequence[str] = ()
    source: str = ""
    label_map: label_map_lib.LabelMap | None = None
    stated: bool = False


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What the values of masks mean.

    Attributes:
        names: The classes, by id.
        source: Where the names are from.
        readings: What the values can mean, likeliest first; the first is used.
        palette: uint8 [256, 3], the colour of each class id.
        stated: Whether the user said what the values mean.
    """

    names: Sequence[str]
    source: str
    readings: Sequence[readings.Reading]
    palette: np.ndarray
    stated: bool

    @property
    def reading(self) -> readings.Reading | None:
        """The meaning that is used; None if there is none."""
        return self.readings[0] if self.readings else None


def class_names(
    listing: listing_lib.Listing,
    stated: label_map_lib.LabelMap | None,
    findings: Findings,
) -> Classes:
    """Reads the names of the classes, and their colours where a file has them."""
    files, names, source, label_map = listing.files, (), "", stated
    least = 1 if listing.classes else 2
    try:
        names = classes_lib.read_classes(files, classes_lib.FILE, at_least=least)
        source = classes_lib.FILE if names else ""
        known = names or stated or listing.classes
        if not known and classes_lib.LABELMAP_FILE in files.names:
            source = classes_lib.LABELMAP_FILE
            names, label_map = classes_lib.read_labelmap(files, source)
    except UserError as error:
        findings.add("classes", str(error))
    folders = listing.classes
    if folders and sorted(names) != sorted(folders):
        for name in sorted({*names} - {*folders}):
            findings.add("classes", f"{name} has no folder of masks")
        for name in sorted({*folders} - {*names} if names else ()):
            findings.add("classes", f"the folder {name} is not in classes.txt")
        names, source = folders, "the folders of masks"
    return Classes(names, source, label_map, stated is not None)


def settle(
    listing: listing_lib.Listing,
    survey: survey_lib.Survey,
    classes: Classes,
    findings: Findings,
) -> Meaning:
    """Settles what the values mean: as was said, or as they look."""
    found = _readings(listing, survey, classes, findings)
    names, source = list(classes.names), classes.source
    palette = labels.voc_palette()
    if listing.classes:
        palette[: labels.IGNORE - 1] = palette[1 : labels.IGNORE]
    elif found:
        reading = found[0]
        names += [f"class {i}" for i in range(len(names), reading.num_classes)]
        source = source or "no classes.txt: counted from the masks"
        for value, class_id in reading.ids.items():
            colour = value if reading.colours else survey.palette.get(value)
            if colour is not None:
                palette[class_id] = colour >> 16, colour >> 8 & 255, colour & 255
    return Meaning(tuple(names), source, found, palette, classes.stated)


def _readings(
    listing: listing_lib.Listing,
    survey: survey_lib.Survey,
    classes: Classes,
    findings: Findings,
) -> Sequence[readings.Reading]:
    pixels, together = collections.Counter(), False
    for item in survey.items:
        for values in item.masks.values():
            pixels.update(values)
            together |= 1 in values and labels.IGNORE in values
    if not pixels:
        return ()
    if classes.label_map is not None:
        reading = readings.stated(classes.label_map, classes.stated)
        if reading.colours != (survey.mask_kind == "colour"):
            kinds = ("colours", "grey values")
            ours, theirs = kinds if reading.colours else kinds[::-1]
            findings.add(
                "encoding", f"the label map has {ours}, the masks {theirs}", count=""
            )
            return ()
        verdict = readings.Verdict([reading])
    elif listing.classes:
        verdict = encodings.recognise_binary(survey.mask_kind, pixels, together)
    else:
        verdict = encodings.recognise(
            survey.mask_kind,
            pixels,
            len(classes.names) or None,
            survey.values_a_mask(),
            together,
        )
    if verdict.fault:
        findings.add(verdict.fault, verdict.message, count="")
    elif not listing.classes:
        needed, named = verdict.readings[0].num_classes, len(classes.names)
        if named and needed > named:
            message = f"{needed} classes in the masks, {named} names"
            findings.add("classes", message)
        if max(needed, named) < 2:
            findings.add("encoding", "there is only one class", count="")
        if verdict.readings[0].title == readings.MIXED:
            findings.add("mixed_binary", count="some")
    return verdict.readings
