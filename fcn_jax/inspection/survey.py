"""One pass over all files of a folder: what they are, and which are faulty."""

import collections
import dataclasses
import functools

import numpy as np
import tqdm

from fcn_jax.inspection import listing as listing_lib
from fcn_jax.inspection import measure
from fcn_jax.inspection.findings import Findings

_DEPTHS = (8, 10, 12, 14)  # Bits of what cameras and microscopes record.


@dataclasses.dataclass
class Item:
    """A pair of files after the look at them.

    Attributes:
        pair: The files.
        size: The image's width and height; (0, 0) if unknown.
        digest: Hash of the image's pixels; b"" if they cannot be read.
        masks: By class, or under "": the values and the pixels of each.
        kinds: By class, or under "": "grey", "colour" or "other".
        colours: By class, or under "": the colour of each value that has one.
        num_values: By class, or under "": how many values there are in all.
        sound: Whether image and masks can be used together.
        beyond_range: Whether only a range of intensities is lacking for that.
    """

    pair: listing_lib.Pair
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    masks: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    colours: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)
    num_values: dict[str, int] = dataclasses.field(default_factory=dict)
    sound: bool = True
    beyond_range: bool = False


@dataclasses.dataclass
class Survey:
    """What all files have in common, and each pair.

    Attributes:
        items: Every pair, in order.
        image_types: How many images are "JPEG RGB", "PNG I;16", ....
        mask_types: The same for the masks.
        mask_kind: What most masks are: "grey" or "colour".
        palette: The colours of values, by the masks' own palettes.
        histogram: int64 [65536]: values of images of more than 8 bits a channel.
        extremes: The least and the largest of those, also of floats; or None.
        num_wide: The number of those images.
    """

    items: list[Item]
    image_types: collections.Counter
    mask_types: collections.Counter
    mask_kind: str = "grey"
    palette: dict[int, int] = dataclasses.field(default_factory=dict)
    histogram: np.ndarray | None = None
    extremes: tuple[float, float] | None = None
    num_wide: int = 0

    def pixels(self, name: str = "") -> dict[int, int]:
        """The pixels of each value, over the masks of one class, or under ""."""
        total = collections.Counter()
        for item in self.items:
            total.update(item.masks.get(name, {}))
        return dict(total)

    def values_a_mask(self) -> float:
        """The mean number of different values in a mask."""
        counts = [n for item in self.items for n in item.num_values.values()]
        return float(np.mean(counts)) if counts else 0.0


def make(
    listing: listing_lib.Listing,
    findings: Findings,
    intensity_range: tuple[float, ...] = (),
    as_colours: bool = False,
) -> Survey:
    """Looks at every file once, in threads; a few files are in memory at a time.

    Args:
        listing: The files.
        findings: What is wrong goes there.
        intensity_range: As `images.read_image` takes it.
        as_colours: Whether masks are read as colours, whatever they are.
    """
    survey = Survey([], collections.Counter(), collections.Counter())
    look_at_image = functools.partial(measure.image, intensity_range=intensity_range)
    look_at_mask = functools.partial(measure.mask, as_colours=as_colours)

    def look(pair):
        image = measure.read(listing.files, pair.image, look_at_image)
        masks = {
            name: measure.read(listing.files, file, look_at_mask)
            for name, file in pair.masks.items()
        }
        return Item(pair), image, masks

    looked = measure.in_threads(look, listing.pairs)
    bar = tqdm.tqdm(looked, "Inspecting", len(listing.pairs), unit=" images")
    for item, image, masks in bar:
        survey.items.append(item)
        _add_image(survey, item, image, findings)
        for name, mask in masks.items():
            _add_mask(survey, item, name, mask, image, findings)
    _settle_kind(survey, findings)
    return survey


def _settle_kind(survey: Survey, findings: Findings) -> None:
    """Takes all masks for colours if most are, else for greys, and reports others."""
    kinds = collections.Counter(k for item in survey.items for k in item.kinds.values())
    survey.mask_kind = "colour" if kinds["colour"] > kinds["grey"] else "grey"
    for item in survey.items:
        for name, kind in list(item.kinds.items()):
            if kind == survey.mask_kind:
                continue
            # All-black masks, above all, are often saved as grey by thrifty programs.
            if kind == "grey" and name in item.colours:
                counts = collections.Counter()
                for value, count in item.masks[name].items():
                    counts[item.colours[name][value]] += count
                item.masks[name] = dict(counts)
            else:
                findings.add("mixed_masks", item.pair.masks[name])
                item.masks.pop(name), item.num_values.pop(name)
                item.sound = False


def _add_image(
    survey: Survey, item: Item, image: measure.ImageFacts, findings: Findings
) -> None:
    item.size, item.digest = image.size, image.digest
    if image.mode:
        survey.image_types[f"{image.type} {image.mode}"] += 1
    if image.fault:
        item.sound, item.beyond_range = False, image.fault == "beyond_range"
        _report_fault(item.pair.image, image, findings)
    if image.extremes:
        survey.num_wide += 1
        ends = (*(survey.extremes or image.extremes), *image.extremes)
        survey.extremes = (min(ends), max(ends))
    if image.histogram is not None:
        known = 0 if survey.histogram is None else survey.histogram
        survey.histogram = known + image.histogram


def _add_mask(
    survey: Survey,
    item: Item,
    name: str,
    mask: measure.MaskFacts,
    image: measure.ImageFacts,
    findings: Findings,
) -> None:
    file = item.pair.masks[name]
    if mask.mode:
        survey.mask_types[f"{mask.type} {mask.mode}"] += 1
    if mask.fault:
        item.sound = False
        _report_fault(file, mask, findings)
    if mask.values is None:
        item.sound = False
        if not mask.fault:
            findings.add("mixed_masks", f"{file}: floats")
        return
    item.masks[name] = dict(
        zip(mask.values.tolist(), mask.counts.tolist(), strict=True)
    )
    item.num_values[name], item.kinds[name] = mask.num_values, mask.kind
    if 0 not in image.size and mask.size != image.size:
        item.sound = False
        turned = "; turned by 90 degrees?" if mask.size == image.size[::-1] else ""
        sizes = [f"{width}x{height}" for width, height in (mask.size, image.size)]
        findings.add("size_mismatch", f"{file} ({sizes[0]} for {sizes[1]}{turned})")
    if mask.colours is not None:
        own = dict(zip(item.masks[name], mask.colours.tolist(), strict=True))
        item.colours[name] = own
        if mask.mode == "P" and any(
            survey.palette.setdefault(k, v) != v for k, v in own.items()
        ):
            findings.add("palettes", file)


def _report_fault(file: str, facts: measure.Facts, findings: Findings) -> None:
    detail = f" ({facts.message})" if facts.fault in ("bomb", "beyond_range") else ""
    findings.add(facts.fault, f"{file}{detail}")


def propose_range(survey: Survey) -> tuple[float, float] | None:
    """The values that should become black and white, if few of the type's are used.

    Where 99.9 % of the pixels fit a number of bits that cameras have, that is the
    range; else the values that 99.8 % of the pixels lie between.

    Returns:
        None if the whole range of the type does well: more than a quarter is used.
    """
    if survey.extremes is None:
        return None
    low, high = survey.extremes
    if survey.histogram is None:  # Floats; 0 to 1 is what they should be.
        fits = 0 <= low and 0.25 < high <= 1
        return None if fits or not high > low else (low, high)
    if low < 0 or high > 65535:
        return (low, high)
    cumulative = np.cumsum(survey.histogram) / survey.histogram.sum()
    first = int(np.searchsorted(cumulative, 0.001))
    last = int(np.searchsorted(cumulative, 0.999))
    if last - first > 65535 / 4 or first == last:
        return None
    for bits in _DEPTHS:
        if high < 1 << bits and last >= 1 << (bits - 2):
            return (0, (1 << bits) - 1)
    return (first if first > last / 4 else 0, last)
