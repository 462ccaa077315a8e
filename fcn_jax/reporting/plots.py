"""Plots as SVG that takes the colours of the page it stands in.

Needs Matplotlib, of the extra ``report``.
"""

import contextlib
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins, which become the page's own colours.
_INK, _ACCENT = "#010203", "#010204"
_PAGE_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)"}

_SETTINGS = {
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "figure.facecolor": "none",
    "font.size": 12.5,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # Text stays text, in the page's font.
    "svg.hashsalt": "",  # The same plot is the same file.
    "text.color": _INK,
    "text.parse_math": False,  # A name may hold a dollar sign.
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_LONGEST = 22  # Letters of a name at the matrix.
_RIGHT, _WRONG = (37, 99, 235), (234, 88, 12)


@contextlib.contextmanager
def _drawn(
    name: str, label: str, width: float, height: float
) -> Iterator[tuple[Figure, list[str]]]:
    """A figure of a size in pixels; its SVG is in the list when the context ends."""
    result: list[str] = []
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The page's fonts have letters that Matplotlib's may lack.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure = Figure((width / 72, height / 72), dpi=72, layout="constrained")
        yield figure, result
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    result.append(_embeddable(file.getvalue(), name, label, width, height))


def _embeddable(svg: str, name: str, label: str, width: float, height: float) -> str:
    """Makes a file an element of a page: own ids, the page's colours, a label."""
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, count=1)  # It is the whole page's.

    def mend(tag: re.Match) -> str:
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag[0])
        for stand_in, colour in _PAGE_COLOURS.items():
            text = text.replace(stand_in, colour)
        return text

    # Text between the tags is a person's: it is escaped, and stays as it is.
    body = re.sub(r"<[^>]+>", mend, body)
    return (
        f'<svg class="plot" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def line(
    name: str,
    title: str,
    x: Sequence[float],
    y: Sequence[float],
    *,
    points: bool = False,
    mark: float | None = None,
) -> str:
    """A curve over steps.

    Args:
        name: of letters, to tell the plots of a page apart.
        title: of the plot.
        x: steps.
        y: values.
        points: whether each value is marked, and the axis begins at zero; else a
            smoothed curve lies over many values.
        mark: a step that gets a vertical line.
    """
    x, y = np.asarray(x), np.asarray(y)
    label = f"{title}, {y[0]:.4g} at step {x[0]} and {y[-1]:.4g} at step {x[-1]}"
    with _drawn(name, label, 380, 240) as (figure, result):
        axes = figure.add_subplot(title=title, xlabel="step")
        if points:
            axes.plot(x, y, "o-", color=_ACCENT, markersize=4)
            axes.set_ylim(0, None)
        elif len(y) >= 100:
            axes.plot(x, y, color=_ACCENT, alpha=0.3, linewidth=0.8)
            window = np.ones(2 * (len(y) // 50) + 1)
            weight = np.convolve(np.ones(len(y)), window, "same")
            axes.plot(x, np.convolve(y, window, "same") / weight, color=_ACCENT)
        else:
            axes.plot(x, y, color=_ACCENT)
        if mark is not None:
            axes.axvline(mark, color=_INK, alpha=0.5, linestyle=":")
    return result[0]


def bands(
    name: str,
    widths: Sequence[str],
    values: Sequence[float | None],
    everywhere: float | None,
) -> str:
    """Mean IoU by the width of the band around boundaries, and that of all pixels."""
    title = "mean IoU near boundaries"
    with _drawn(name, f"{title}, by width", 380, 260) as (figure, result):
        axes = figure.add_subplot(title=title, xlabel="pixels on either side")
        if everywhere is not None:
            axes.axhline(everywhere, color=_INK, alpha=0.5, linestyle=":")
            place = {"ha": "left", "va": "bottom", "alpha": 0.7}
            axes.text(0, everywhere + 0.01, "everywhere", place)
        axes.plot(np.array(values, float), "o-", color=_ACCENT)
        axes.set_xticks(range(len(widths)), widths)
        axes.set_ylim(0, 1)
    return result[0]


def histogram(name: str, title: str, values: Sequence[float]) -> str:
    """How many images have which score, in twentieths."""
    with _drawn(name, f"images by {title}", 380, 240) as (figure, result):
        axes = figure.add_subplot(title=f"images by {title}", xlabel=title)
        axes.hist(values, bins=20, range=(0, 1), color=_ACCENT, alpha=0.8)
        axes.set_xlim(0, 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
    return result[0]


def thresholds(
    name: str, ious: np.ndarray, colours: np.ndarray, used: Sequence[float]
) -> str:
    """IoU of each class over the threshold on its probability.

    Args:
        name: see `line`.
        ious: [C,100], at each hundredth; nan where undefined.
        colours: uint8 [C,3].
        used: the thresholds that the predictions were made with.
    """
    with _drawn(name, "IoU of each class over threshold", 420, 280) as (figure, result):
        axes = figure.add_subplot(title="IoU over threshold", xlabel="threshold")
        x = np.arange(ious.shape[1]) / ious.shape[1]
        halo = [patheffects.withStroke(linewidth=3.2, foreground="#9ca3af")]
        for values, colour, threshold in zip(ious, colours / 255, used, strict=True):
            axes.plot(x[1:], values[1:], color=colour, path_effects=halo)
            at = round(threshold * ious.shape[1])
            axes.plot(x[at], values[at], "o", color=colour, path_effects=halo)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    return result[0]


def confusion(name: str, shares: np.ndarray, class_names: Sequence[str]) -> str:
    """A confusion matrix: the right in blue, the wrong in orange, darker is more.

    Args:
        name: see `line`.
        shares: [C,C], of the pixels of each row; nan where there are none.
        class_names: C names.
    """
    number = len(class_names)
    cell = 44 if number <= 12 else 34 if number <= 21 else 18 if number <= 60 else 12
    names = [_short(class_name) for class_name in class_names]
    letters = max(len(class_name) for class_name in names)
    size = 12.5 if number <= 21 else 11 if number <= 60 else 9.5
    margin = 40 + 0.62 * size * letters
    side = number * cell + margin
    colours = np.where(np.eye(number, dtype=bool)[..., None], _RIGHT, _WRONG)
    # The root shows the rare mistakes, too; orange stays pale enough for black text.
    alpha = np.sqrt(np.nan_to_num(shares)) * np.where(np.eye(number), 255, 217)
    picture = np.dstack([colours, alpha]).round().astype(np.uint8)
    label = f"Confusion matrix of {number} classes"
    with _drawn(name, label, side, side) as (figure, result):
        figure.set_layout_engine("none")
        space = margin / side
        axes = figure.add_axes((space, 0, 1 - space, 1 - space))
        axes.imshow(picture, interpolation="none", aspect="auto")
        axes.set_xticks(range(number), names, rotation=90, size=size)
        axes.set_yticks(range(number), names, size=size)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)
        edges = np.arange(number + 1) - 0.5
        axes.hlines(edges, -0.5, number - 0.5, _INK, linewidth=0.5, alpha=0.15)
        axes.vlines(edges, -0.5, number - 0.5, _INK, linewidth=0.5, alpha=0.15)
        # At the corner, which is seen first where the matrix is wider than the page.
        edge = 4 / side
        figure.text(edge, 1 - space, "truth", rotation=90, va="top")
        figure.text(space, 1 - edge, "prediction", va="top")
        if number <= 21:
            _write_shares(axes, shares, cell)
    return result[0]


def _write_shares(axes: Axes, shares: np.ndarray, cell: int) -> None:
    """Percentages, in the cells that have at least half of one."""
    for (i, j), share in np.ndenumerate(shares):
        if share >= 0.005:  # False for nan.
            # On a strong blue white is legible in any page, else the page's ink.
            colour = "white" if i == j and share > 0.4 else _INK
            percent = f"{100 * share:.0f}"
            axes.text(j, i, percent, color=colour, size=cell / 4 + 2).set(
                ha="center", va="center"
            )


def _short(name: str) -> str:
    """A name in one line of limited length."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\u2026"
