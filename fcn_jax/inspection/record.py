"""What `inspect` found out, as files for people and programs."""

import collections
import json
import pathlib
from typing import Any

import numpy as np

from fcn_jax.inspection import command
from fcn_jax.inspection import inspect as inspect_lib
from fcn_jax.inspection.findings import titled
from fcn_jax.inspection.readings import show_colour
from fcn_jax.reporting import colors


def save(report: inspect_lib.Report, sheet: np.ndarray | None) -> list[pathlib.Path]:
    """Writes inspect.json and contact_sheet.png, beside label_map.txt if there is one.

    Each is written whole or not at all; what an earlier inspection left is replaced.

    Args:
        report: What was found out.
        sheet: RGB, uint8 [H, W, 3], or None.

    Returns:
        The files.
    """
    folder = report.output
    written = [folder / "inspect.json"]
    command.write_whole(written[0], to_json(report))
    if (folder / "label_map.txt").exists():
        written.append(folder / "label_map.txt")
    path = folder / "contact_sheet.png"
    if sheet is None:
        path.unlink(missing_ok=True)
        return written
    colors.save_image(path, sheet)
    return [*written, path]


def to_json(report: inspect_lib.Report) -> str:
    """Everything, with the names of all files concerned; see the keys."""
    table, survey = report.table, report.survey
    content: dict[str, Any] = {
        "source": str(report.source),
        "ok": report.ok,
        "layout": report.listing.layout,
        "num_images": report.listing.num_images,
        "num_masks": report.listing.num_masks,
        "num_pairs": len(report.listing.pairs),
        "splits": {name: len(members) for name, members in report.splits.items()},
        "sizes": sizes(report),
        "image_types": dict(survey.image_types),
        "mask_types": dict(survey.mask_types),
        "value_range": survey.extremes,
        "intensity_range": list(report.intensity_range),
        "values": {show(report, v): n for v, n in pixels(report).items()},
        "readings": [
            {
                "title": reading.title,
                "label_map": reading.label_map,
                "num_classes": reading.num_classes,
                "evidence": list(reading.evidence),
            }
            for reading in report.meant.readings
        ],
        "label_map": report.meant.reading.label_map if report.meant.reading else None,
        "class_names": list(report.meant.names),
        "classes": table
        and [
            {
                "id": i,
                "name": row.name,
                "share": table.share(row),
                "pixels": row.pixels,
                "images": row.images,
            }
            for i, row in enumerate(table.rows)
        ],
        "void_share": table and table.void_share(),
        "findings": [
            {
                "kind": found.kind,
                "level": found.level,
                "count": found.count,
                "title": titled(found),
                "names": found.names,
                "remedy": found.remedy,
            }
            for found in report.findings.sorted()
        ],
        "command": report.command,
    }
    return json.dumps(content, indent=1)  # Escapes all that is not ASCII.


def sizes(report: inspect_lib.Report) -> dict[str, Any]:
    """Width and height: the least, the median, the largest, how many different."""
    sizes = np.array([i.size for i in report.survey.items if 0 not in i.size])
    if not len(sizes):
        return {}
    return {
        "min": sizes.min(0).tolist(),
        "median": np.median(sizes, 0).astype(int).tolist(),
        "max": sizes.max(0).tolist(),
        "distinct": len(np.unique(sizes, axis=0)),
    }


def pixels(report: inspect_lib.Report) -> dict[int, int]:
    """The pixels of each value of the masks."""
    total = collections.Counter()
    for name in report.listing.classes or [""]:
        total.update(report.survey.pixels(name))
    return dict(sorted(total.items()))


def show(report: inspect_lib.Report, value: int) -> str:
    """The text of a value of the masks: a number or a colour."""
    return show_colour(value) if report.survey.mask_kind == "colour" else str(value)
