"""Scores as a table of plain text."""

from collections.abc import Mapping, Sequence

# Title, and name among the scores, of the columns and of the lines below them; which
# there are depends on the task.
_COLUMNS = (
    ("IoU", "iou_per_class"),
    ("Dice", "dice_per_class"),
    ("accuracy", "accuracy_per_class"),
    ("precision", "precision_per_class"),
    ("recall", "recall_per_class"),
    ("threshold", "threshold_per_class"),
    ("best", "best_threshold_per_class"),
)
_SUMMARY = (
    ("pixel accuracy", "pixel_accuracy"),
    ("mean accuracy", "mean_accuracy"),
    ("mean IoU", "mean_iou"),
    ("mean Dice", "mean_dice"),
    ("frequency-weighted IoU", "frequency_weighted_iou"),
)


def per_class_table(class_names: Sequence[str], scores: Mapping) -> str:
    """Returns the scores of each class, one a line, and of all classes below.

    Args:
        class_names: Names of the classes, in the order of the lines.
        scores: See ``Task.scores``: by class name, fractions or None where they are
            undefined, and "pixels_per_class"; for all classes fractions; "num_images"
            and "num_pixels".
    """
    pixels = scores["pixels_per_class"]
    columns = [(title, scores[key]) for title, key in _COLUMNS if key in scores]
    total = scores["num_pixels"]
    if "dice_per_class" in scores:  # All pixels were asked for each class.
        total /= len(class_names)
    rows = [("class", *(title for title, _ in columns), "pixels")]
    for name in class_names:
        share = f"{pixels[name] / total:.2%}" if total else "-"
        rows.append((name, *(_number(t, of[name]) for t, of in columns), share))
    summary = [(w, _number(w, scores[key])) for w, key in _SUMMARY if key in scores]
    first = max(len(row[0]) for row in rows + summary)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths = [first, max(6, widths[1]), *widths[2:-1], max(7, widths[-1])]
    lines = [
        f"{row[0]:<{first}}"
        + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:], rule]
    lines += [f"{words:<{first}}  {value:>6}" for words, value in summary]
    lines.append(
        f"{scores['num_images']:,} images, {scores['num_pixels']:,} labelled pixels"
    )
    return "\n".join(lines)


def _number(title: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if title in ("threshold", "best") else f"{value:.4f}"
