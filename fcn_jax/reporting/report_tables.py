"""What the tables of a report say: numbers and names as text, by row and column."""

import unicodedata

import numpy as np

from fcn_jax.data.labels import IGNORE
from fcn_jax.reporting.report_content import Content

# Title, meaning and name among the scores; which there are depends on the task.
_COLUMNS = tuple(
    (title, words, f"{key}_per_class")
    for title, key, words in (
        ("IoU", "iou", "pixels that are right, of those labelled or predicted so"),
        (
            "Dice",
            "dice",
            "twice the right pixels, of those labelled plus those predicted",
        ),
        ("Accuracy", "accuracy", "pixels that are right, of those labelled so: recall"),
        ("Precision", "precision", "pixels that are right, of those predicted so"),
        ("Recall", "recall", "pixels that are right, of those labelled so"),
        ("Boundary F1", "boundary_f1", "agreement of the outlines, see Boundaries"),
        ("Threshold", "threshold", "probability from which a class counts as present"),
        ("Best", "best_threshold", "threshold with the highest IoU on these images"),
        ("IoU there", "best_iou", "IoU at that threshold"),
    )
)


def percent(value: float | None) -> str:
    """A fraction for people to read."""
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f} %"


def printable(text: object) -> str:
    """Text in which what cannot be seen, such as a newline, is escaped."""
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter)[0] == "C" else letter
        for letter in str(text)
    )


def class_table(content: Content) -> dict[str, list]:
    """Titles, explanations and rows of the table of classes."""
    scores, counts = content.scores, content.counts
    total = scores["num_pixels"]
    if content.multilabel:  # Each pixel was asked for each class.
        total /= len(content.class_names)
    else:
        precision = np.diag(divide(counts, counts.sum(0)))
        by_name = zip(content.class_names, precision, strict=True)
        by_name = {name: None if np.isnan(v) else float(v) for name, v in by_name}
        scores = scores | {"precision_per_class": by_name}
    columns = [column for column in _COLUMNS if column[2] in scores]
    rows = []
    for i, name in enumerate(content.class_names):
        values = [scores[key][name] for _, _, key in columns]
        pixels = scores["pixels_per_class"][name]
        share = pixels / total if total else None
        cells = [
            (value, _threshold(value) if "threshold" in key else percent(value))
            for value, (_, _, key) in zip(values, columns, strict=True)
        ]
        cells += [(pixels, f"{pixels:,}"), (share, percent(share))]
        rows.append({"name": name, "colour": css(content.palette[i]), "cells": cells})
    titles = [(title, words) for title, words, _ in columns]
    titles += [
        ("Pixels", "pixels that are labelled so"),
        ("Share", "those, of all labelled pixels"),
    ]
    return {"titles": titles, "rows": rows}


def _threshold(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def legend(content: Content) -> list[tuple[str, str]]:
    """Colour and name of each class, and of void where it has a colour."""
    entries = [
        (css(content.palette[i]), name) for i, name in enumerate(content.class_names)
    ]
    if not content.multilabel:
        entries.append((css(content.palette[IGNORE]), "void (not scored)"))
    return entries


def css(colour: np.ndarray) -> str:
    """An RGB colour as styles write it."""
    return "#" + "".join(f"{part:02x}" for part in colour.tolist())


def confusions(content: Content, most: int = 10) -> list[tuple]:
    """The mistakes that cost the most pixels: truth, prediction, share, pixels."""
    wrong = content.counts * ~np.eye(len(content.counts), dtype=bool)
    labelled = content.counts.sum(1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    names = content.class_names
    return [
        (names[i], names[j], percent(wrong[i, j] / labelled[i]), f"{wrong[i, j]:,}")
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]


def ious_by_threshold(counts: np.ndarray) -> np.ndarray:
    """IoU of each class at each hundredth, [C,2,100] -> [C,100]."""
    absent, present = counts[:, :, ::-1].cumsum(-1)[:, :, ::-1].swapaxes(0, 1)
    return divide(present, present[:, :1] + absent)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shares, nan where there is nothing to be divided by."""
    b = np.broadcast_to(b, a.shape)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
