"""One page about one evaluation, ``report.html``, which needs no other file.

The page is made by the templates beside this file, the plots by `plots`, and the
pictures by `report_pictures`. Names and settings are a person's text: Jinja escapes
them.
"""

import importlib.util
import json
import pathlib
from typing import Any

import numpy as np
from etils import epath

from fcn_jax import remote
from fcn_jax.errors import UserError
from fcn_jax.reporting import report_tables
from fcn_jax.reporting.report_content import Content
from fcn_jax.reporting.report_tables import percent, printable

NAME = "report.html"
_NEEDS = ("jinja2", "matplotlib")  # Of the extra; imported when a report is written.
_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_MANY_CLASSES = 30  # From here on the legend is closed.
_SUMMARY = (
    ("Mean IoU", "mean_iou"),
    ("Pixel accuracy", "pixel_accuracy"),
    ("Mean accuracy", "mean_accuracy"),
    ("Mean Dice", "mean_dice"),
    ("Frequency-weighted IoU", "frequency_weighted_iou"),
    ("Boundary F1", "boundary_f1"),
)


def require_libraries() -> None:
    """Raises UserError unless what the extra ``report`` installs is there."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--report needs {' and '.join(missing)}, not installed here; install it "
            "with: pip install -e '.[report]'"
        )


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The whole lines of a run's ``metrics.jsonl``, none if there is no such file."""
    path = epath.Path(workdir) / "metrics.jsonl"
    lines = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:  # Half written by a run that goes on.
                continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def write(path: epath.PathLike, content: Content) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: of the file, which may be a URL.
        content: what it tells.
    """
    page = render(content)
    if remote.is_url(path):
        epath.Path(path).write_text(page)  # Appears when it is whole.
        return
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def render(content: Content) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scores = content.scores
    environment.filters |= {"percent": percent, "printable": printable}
    return environment.get_template("report.html.jinja").render(
        content=content,
        summary=[(words, scores[key]) for words, key in _SUMMARY if key in scores],
        table=report_tables.class_table(content),
        legend=report_tables.legend(content),
        legend_open=len(content.class_names) < _MANY_CLASSES,
        plots=_plots(content),
        confusions=[] if content.multilabel else report_tables.confusions(content),
        images=_images(content),
    )


def _plots(content: Content) -> dict[str, list]:
    """SVG elements, by the section that they stand in."""
    import markupsafe

    from fcn_jax.reporting import plots

    trimap = content.scores["trimap_iou"]
    drawn = {
        "classes": [],
        "boundaries": [
            plots.bands(
                "bands", list(trimap), list(trimap.values()), content.scores["mean_iou"]
            )
        ],
        "training": _curves(content, plots),
        "images": [],
    }
    if content.mean_ious:
        drawn["images"].append(plots.histogram("images", "mean IoU", content.mean_ious))
    if content.multilabel:
        drawn["classes"].append(
            plots.thresholds(
                "thresholds",
                report_tables.ious_by_threshold(content.counts),
                content.palette[: len(content.class_names)],
                list(content.scores["threshold_per_class"].values()),
            )
        )
    else:
        shares = report_tables.divide(
            content.counts, content.counts.sum(1, keepdims=True)
        )
        names = [printable(name) for name in content.class_names]
        drawn["classes"].append(plots.confusion("confusion", shares, names))
    return {
        section: [markupsafe.Markup(svg) for svg in found]
        for section, found in drawn.items()
    }


def _curves(content: Content, plots) -> list[str]:
    """Loss, learning rate and validation mean IoU, as far as they were logged."""
    step = content.checkpoint
    mark = int(step) if step.isdigit() else None
    found = []
    for name, key, title in (
        ("loss", "train/loss", "training loss"),
        ("rate", "train/learning_rate", "learning rate"),
        ("val", "val/mean_iou", "validation mean IoU"),
    ):
        points = [
            (line["step"], line[key])
            for line in content.metrics
            if line.get(key) is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            scored = name == "val"
            found.append(plots.line(name, title, x, y, points=scored, mark=mark))
    return found


def _images(content: Content) -> list[tuple[str, str, list[dict]]]:
    """The best and the worst images: title, anchor, and what is shown of each."""
    from fcn_jax.reporting import report_pictures

    shown = [*content.best, *content.worst]
    drawn = report_pictures.rows(shown, content.palette)
    entries = []
    for one, pictures in zip(shown, drawn, strict=True):
        order = [i for i in np.argsort(one.ious) if not np.isnan(one.ious[i])]
        lowest = [(content.class_names[i], percent(one.ious[i])) for i in order[:4]]
        entries.append(
            {"name": one.name, "score": one.mean_iou, "pictures": pictures}
            | {"lowest": lowest, "more": len(order) > len(lowest)}
        )
    split = len(content.best)
    groups = [("Best images", "best", entries[:split])]
    return groups + [("Worst images", "worst", entries[split:])]
