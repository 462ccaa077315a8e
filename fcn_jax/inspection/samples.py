"""The images of the contact sheet: so many that every class and split is seen."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from fcn_jax.data import images, labels
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError
from fcn_jax.inspection import inspect as inspect_lib
from fcn_jax.inspection import survey as survey_lib
from fcn_jax.inspection.findings import printable
from fcn_jax.reporting import colors, contact_sheet

_LARGEST = 1024  # Pixels: what is larger is reduced before its mask is laid over.


def draw(report: inspect_lib.Report, num_shown: int) -> np.ndarray | None:
    """Draws the contact sheet, RGB uint8 [H, W, 3]; None if no image can be shown."""
    items = report.survey.items
    usable = [i for i, item in enumerate(items) if item.sound]
    if not usable:
        return None
    shown = choose(usable, report.counted, report.splits, num_shown)
    title = f"{report.source.name}: {len(shown)} of {len(items):,} images"
    return contact_sheet.draw(
        _pictures(report, shown), _legend(report), printable(title)
    )


def choose(
    usable: Sequence[int],
    counted: Sequence[Mapping[int, int]],
    splits: Mapping[str, Sequence[int]],
    most: int,
) -> list[int]:
    """Chooses images: first one for each class, rare ones first, then evenly.

    Args:
        usable: The numbers of the images to choose from.
        counted: Of each image, the pixels of each class id; may be empty.
        splits: The images of each split.
        most: How many, at most.

    Returns:
        Their numbers, in order of the splits.
    """
    holders = {}
    for i in usable if counted else ():
        for class_id in counted[i].keys() - {labels.IGNORE}:
            holders.setdefault(class_id, []).append(i)
    chosen, seen = {}, set()
    for class_id in sorted(holders, key=lambda k: (len(holders[k]), k)):
        if class_id in seen or len(chosen) >= most:
            continue
        best = max(holders[class_id], key=lambda i: (counted[i][class_id], -i))
        chosen[best] = True
        seen |= counted[best].keys()
    # The others at even steps through all splits, one after the other.
    order = [i for members in splits.values() for i in members]
    order = list(dict.fromkeys([*order, *usable]))
    allowed = set(usable)
    left = [i for i in order if i in allowed and i not in chosen]
    number = min(len(left), max(0, most - len(chosen)))
    for place in np.linspace(0, len(left) - 1, number).round().astype(int).tolist():
        chosen[left[place]] = True
    return [i for i in order if i in chosen]


def _pictures(
    report: inspect_lib.Report, shown: Sequence[int]
) -> Iterator[contact_sheet.Picture]:
    homes = {i: split for split, members in report.splits.items() for i in members}
    text = report.meant.reading.label_map if report.meant.reading else ""
    label_map = label_map_lib.parse(text) if text else None
    for i in shown:
        item = report.survey.items[i]
        caption = f"{homes[i]}: {item.pair.name}" if i in homes else item.pair.name
        try:
            yield _picture(report, item, label_map, printable(caption))
        except UserError:
            continue  # Changed since it was inspected.


def _picture(
    report: inspect_lib.Report,
    item: survey_lib.Item,
    label_map: label_map_lib.LabelMap | None,
    caption: str,
) -> contact_sheet.Picture:
    files = report.listing.files
    data = files.read(item.pair.image)
    image = images.read_image(
        data, item.pair.image, intensity_range=report.intensity_range
    )
    image = _reduce(image, Image.Resampling.BOX)
    if report.meant.reading is None and "" not in item.pair.masks:
        return contact_sheet.Picture(
            image, image, np.zeros(image.shape[:2], bool), caption
        )
    if report.meant.reading is None:
        mask = _raw(files.read(item.pair.masks[""]))
        mixed = (image.astype(int) + mask) // 2
        void = np.zeros(image.shape[:2], bool)
        return contact_sheet.Picture(image, mixed.astype(np.uint8), void, caption)
    masks = {
        name: _reduce(
            images.read_mask(files.read(file), file, label_map),
            Image.Resampling.NEAREST,
        )
        for name, file in item.pair.masks.items()
    }
    if report.listing.classes:
        void = np.zeros(image.shape[:2], bool)
        ids = np.zeros((*image.shape[:2], len(report.meant.names)), np.uint8)
        for name, mask in masks.items():
            present = mask == 1 if label_map else mask > 0
            ids[..., report.meant.names.index(name)] = present
            void |= (mask == labels.IGNORE) & ~present
    else:
        ids = masks[""]
        void = ids == labels.IGNORE
    overlay = colors.overlay(image, ids, report.meant.palette, 0.5)
    if not report.listing.classes:
        # Black, as of a background, would darken the image, and stays clear.
        clear = ~report.meant.palette[ids].any(-1)
        overlay[clear] = image[clear]
    return contact_sheet.Picture(image, overlay, void, caption)


def _reduce(array: np.ndarray, how: Image.Resampling) -> np.ndarray:
    height, width = array.shape[:2]
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return array
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(array).resize(size, how))


def _raw(data: bytes) -> np.ndarray:
    """A mask as a viewer shows it, RGB uint8 [h, w, 3], reduced."""
    read = images.read_image(data, "mask")
    return _reduce(read, Image.Resampling.NEAREST)


def _legend(report: inspect_lib.Report) -> list[tuple]:
    if report.table is None:
        return []
    entries = [
        (
            tuple(report.meant.palette[i].tolist()),
            f"{i} {printable(row.name)}"
            + " (clear)" * (not report.meant.palette[i].any()),
            f"{report.table.share(row):.2%}",
        )
        for i, row in enumerate(report.table.rows)
    ]
    if share := report.table.void_share():
        entries.append((None, "void", f"{share:.2%}"))
    return entries
