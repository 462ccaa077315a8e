"""What `inspect` found out, as text for a terminal."""

import collections
import textwrap
from collections.abc import Sequence

from fcn_jax.data import labels
from fcn_jax.inspection import command, record
from fcn_jax.inspection import inspect as inspect_lib
from fcn_jax.inspection.findings import (
    Finding,
    first_few,
    printable,
    shorten,
    titled,
)
from fcn_jax.inspection.kinds import Level

_LAYOUTS = {
    "voc": "VOC layout (JPEGImages, SegmentationClass, lists)",
    "parallel": "two parallel folders",
    "multilabel": "multilabel: a folder of binary masks for each class",
    "": "no layout that is known",
}
_HEADINGS = {
    Level.ERROR: ("Must be mended", "x"),
    Level.WARNING: ("Worth a look", "!"),
    Level.NOTE: ("Good to know", "-"),
}
_WIDTH = 100  # Characters of a line.
_MOST_CLASSES = 30  # In the table of the text; more are shown in part.


def text(report: inspect_lib.Report) -> str:
    """The report for a terminal, of names without control characters."""
    parts = [_head(report)]
    if report.table is not None:
        parts.append(_classes(report))
    elif report.survey.items:
        parts.append(_values(report))
    for level in Level:
        if found := report.findings.of(level):
            parts.append(_findings(level, found))
    parts.append(_ending(report))
    return "\n\n".join("\n".join(part) for part in parts)


def _head(report: inspect_lib.Report) -> list[str]:
    listing, survey = report.listing, report.survey
    lines = [printable(str(report.source)), f"  layout   {_LAYOUTS[listing.layout]}"]
    if not listing.layout:
        return lines
    if listing.layout != "voc":
        where = f"{listing.image_dir}, {listing.mask_dir}"
        lines[-1] += f": {printable(where)}"
    counts = {name: len(members) for name, members in report.splits.items()}
    splits = ", ".join(f"{name} {n:,}" for name, n in counts.items())
    at_random = " (at random; data.val_fraction)" if listing.splits is None else ""
    lines.append(
        f"  images   {listing.num_images:,}, masks {listing.num_masks:,}, together "
        f"{len(listing.pairs):,}" + (f": {splits}{at_random}" if splits else "")
    )
    lines.append(f"  types    images {_counted(survey.image_types)}")
    lines.append(f"           masks {_counted(survey.mask_types)}")
    if sizes := record.sizes(report):
        width, height = sizes["median"]
        several = (
            f"{sizes['min'][0]}x{sizes['min'][1]} to {sizes['max'][0]}x"
            f"{sizes['max'][1]}, median {width}x{height}, {sizes['distinct']} different"
        )
        same = f"{width}x{height}, all"
        lines.append(f"  sizes    {same if sizes['distinct'] == 1 else several}")
    if survey.extremes:
        low, high = survey.extremes
        lines.append(
            f"  values   of {survey.num_wide:,} images of over 8 bits: {low:g} to "
            f"{high:g}"
        )
        if report.intensity_range:
            ends = ",".join(f"{end:g}" for end in report.intensity_range)
            lines[-1] += f"; --config.data.intensity_range={ends}"
    lines += _meaning(report)
    return lines


def _meaning(report: inspect_lib.Report) -> list[str]:
    meant, lines = report.meant, []
    for i, reading in enumerate(meant.readings):
        words = "; ".join(reading.evidence)
        text = f"{reading.title}: {words}" if words else reading.title
        head = "  meaning  " if i == 0 else "  or else  "
        lines += _wrapped(text, head)
        if reading.label_map and not meant.stated:
            lines.append(f"           label_map={shorten(reading.label_map, 70)}")
        elif len(meant.readings) > 1:
            lines.append("           no label_map")
    return lines


def _classes(report: inspect_lib.Report) -> list[str]:
    table = report.table
    splits = [name for name in table.num_images if name != "all"]
    splits = splits if 1 < len(splits) <= 4 else []
    mapped = bool(report.meant.reading.label_map) and not report.listing.classes
    values = collections.defaultdict(list)
    for value, class_id in report.meant.reading.ids.items():
        values[class_id].append(record.show(report, value))
    head = ["id", "class", *["value"] * mapped, "pixels", *splits]
    head += ["images", *splits]
    rows = []
    for i, row in enumerate(table.rows):
        cells = [str(i), shorten(printable(row.name), 28)]
        cells += [first_few(values[i], 2)] * mapped
        cells += [f"{table.share(row, s):.2%}" for s in ("all", *splits)]
        cells += [f"{row.images[s]:,}" for s in ("all", *splits)]
        rows.append((table.share(row), cells))
    if len(rows) > _MOST_CLASSES:
        order = sorted(range(len(rows)), key=lambda i: -rows[i][0])
        shown = sorted(order[:15]) + [None] + sorted(order[-10:])
        hidden = f"... {len(rows) - 25} more, see inspect.json"
        rows = [rows[i] if i is not None else (0, ["", hidden]) for i in shown]
    void = ["", "void", *[first_few(values[labels.IGNORE], 2)] * mapped]
    void += [f"{table.void_share(s):.2%}" for s in ("all", *splits)]
    body = [cells for _, cells in rows]
    if table.void["all"] or values[labels.IGNORE]:
        body.append(void)
    lines = _aligned([head, *body], 2 + mapped)
    return [f"Classes ({printable(report.meant.source)})", *lines]


def _values(report: inspect_lib.Report) -> list[str]:
    """The values of masks that nothing is known about."""
    pixels = record.pixels(report)
    total = sum(pixels.values())
    order = sorted(pixels, key=lambda value: -pixels[value])
    rows = [["value", "pixels"]]
    rows += [[record.show(report, v), f"{pixels[v] / total:.2%}"] for v in order[:12]]
    if len(order) > 12:
        rows.append([f"... {len(order) - 12} more"])
    return ["Values of the masks", *_aligned(rows, 1)]


def _findings(level: Level, found: Sequence[Finding]) -> list[str]:
    heading, mark = _HEADINGS[level]
    lines = [heading]
    for finding in found:
        few, width = (3 if level is Level.ERROR else 2), 90
        if finding.count == "":  # A sentence, not names.
            few, width = 10, 300
        names = f": {first_few(finding.names, few, width)}" if finding.names else ""
        lines += _wrapped(f"{titled(finding)}{names}", f"  {mark} ")
        if finding.remedy:
            lines += _wrapped(finding.remedy, "    ")
    return lines


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(
        line,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _ending(report: inspect_lib.Report) -> list[str]:
    if not report.listing.layout:
        return ["Arrange the folder first, then inspect it again."]
    if not report.ok:
        head = "Once what must be mended is mended, inspect it again; then train with:"
    elif report.meant.reading is not None and len(report.meant.readings) > 1:
        head = "To train on it (with the first meaning; look at contact_sheet.png):"
    else:
        head = "To train on it:"
    return [
        head,
        *(f"  {line}" for line in command.lines(report.command)),
        "That starts from ImageNet's weights (553 MB) and wants a GPU; without either, "
        "take configs/small.py.",
    ]


def _counted(types: collections.Counter) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in types.most_common(4)) or "-"


def _aligned(rows: Sequence[Sequence[str]], num_left: int) -> list[str]:
    """Columns with two spaces between; the first ones after the id to the left."""
    widths = collections.Counter()
    for row in rows:
        for i, cell in enumerate(row):
            if len(row) > 2 or i != len(row) - 1 or len(rows[0]) == 2:
                widths[i] = max(widths[i], len(cell))
    lines = []
    for row in rows:
        cells = [
            cell.ljust(widths[i])
            if 0 < i < num_left or num_left == 1 == i + 1
            else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
