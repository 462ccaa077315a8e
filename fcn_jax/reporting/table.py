"""Scores as a table of plain text."""

from collections.abc import Mapping, Sequence


def per_class_table(class_names: Sequence[str], scores: Mapping) -> str:
    """Returns the scores of each class, one a line, and of all classes below.

    Args:
        class_names: Names of the classes, in the order of the lines.
        scores: "iou_per_class", "accuracy_per_class" (name -> fraction, or None where
            the class does not occur) and "pixels_per_class" (name -> count);
            "pixel_accuracy", "mean_accuracy", "mean_iou" and
            "frequency_weighted_iou", fractions; "num_images" and "num_pixels".
    """
    pixels = scores["pixels_per_class"]
    total = sum(pixels.values())
    rows = [("class", "IoU", "accuracy", "pixels")]
    for name in class_names:
        iou = _fraction(scores["iou_per_class"][name])
        accuracy = _fraction(scores["accuracy_per_class"][name])
        share = f"{pixels[name] / total:.2%}" if total else "-"
        rows.append((name, iou, accuracy, share))
    summary = [
        ("pixel accuracy", _fraction(scores["pixel_accuracy"])),
        ("mean accuracy", _fraction(scores["mean_accuracy"])),
        ("mean IoU", _fraction(scores["mean_iou"])),
        ("frequency-weighted IoU", _fraction(scores["frequency_weighted_iou"])),
    ]
    first = max(len(row[0]) for row in rows + summary)
    lines = [
        f"{name:<{first}}  {iou:>6}  {accuracy:>8}  {share:>7}"
        for name, iou, accuracy, share in rows
    ]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:], rule]
    lines += [f"{words:<{first}}  {value:>6}" for words, value in summary]
    lines.append(
        f"{scores['num_images']:,} images, {scores['num_pixels']:,} labelled pixels"
    )
    return "\n".join(lines)


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
