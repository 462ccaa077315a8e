"""The command that trains on a folder, as text for a shell."""

import pathlib
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from fcn_jax.data import labels
from fcn_jax.inspection import listing as listing_lib
from fcn_jax.inspection import meaning
from fcn_jax.inspection import survey as survey_lib
from fcn_jax.inspection.findings import printable
from fcn_jax.inspection.readings import show_colour

_CROP = 512  # Pixels; that of configs/default.py.
_LONG_MAP = 5  # Entries; a longer map is written to a file.


def compose(
    source: pathlib.Path,
    output: pathlib.Path,
    listing: listing_lib.Listing,
    survey: survey_lib.Survey,
    meant: meaning.Meaning,
    intensity_range: tuple[float, ...],
    splits: tuple[str, str],
) -> tuple[dict[str, str], str]:
    """Returns the settings to train with, and a long label map that one names by file.

    Args:
        source: The folder, absolute.
        output: The folder where the label map is going to be, absolute.
        listing: What the folder holds.
        survey: The sizes of its images.
        meant: The label map.
        intensity_range: See `images.read_image`.
        splits: The names of the lists to train and to validate with.
    """
    settings, map_file = {"data.name": "folder", "data.source": str(source)}, ""
    if listing.layout != "voc":
        for key, default in (("image_dir", "images"), ("mask_dir", "masks")):
            if getattr(listing, key) != default:
                settings[f"data.{key}"] = getattr(listing, key)
    if listing.classes:
        settings["task"] = "multilabel"
        if any(len(pair.masks) < len(listing.classes) for pair in listing.pairs):
            settings["data.missing_masks"] = "absent"
    if meant.reading is not None and meant.reading.label_map:
        settings["data.label_map"] = meant.reading.label_map
        if meant.reading.label_map.count(",") >= _LONG_MAP:
            settings["data.label_map"] = str(output / "label_map.txt")
            map_file = _map_file(meant)
    if intensity_range:
        low, high = intensity_range
        settings["data.intensity_range"] = f"{low:g},{high:g}"
    if splits != ("train", "val"):
        settings |= {"data.train_split": splits[0], "data.val_split": splits[1]}
    sizes = np.array([item.size for item in survey.items if item.sound])
    if len(sizes) and sizes.max(0).min() < _CROP:
        width, height = np.minimum(sizes.max(0), _CROP).tolist()
        settings["augment.crop"] = f"{height},{width}"
    return settings, map_file


def words(settings: Mapping[str, str]) -> list[str]:
    """The command with settings, such as {"data.name": "folder"}."""
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["python", "run_train.py", "--config=configs/fcn8s.py", *flags]


def write_whole(path: pathlib.Path, text: str) -> bool:
    """Writes a file, whole or not at all; of no text, removes it and returns False."""
    if not text:
        path.unlink(missing_ok=True)
        return False
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return True


def _map_file(meant: meaning.Meaning) -> str:
    """The label map, a value a line in the order of the classes, with their names."""
    reading = meant.reading
    text = [f"// {printable(reading.title)}"]
    for value, class_id in sorted(reading.ids.items(), key=lambda pair: pair[1]):
        void = class_id == labels.IGNORE
        shown = show_colour(value) if reading.colours else value
        name = "" if void else f"  // {printable(meant.names[class_id])}"
        text.append(f"{shown}:{'void' if void else class_id}{name}")
    return "\n".join([*text, ""])


def lines(command: Sequence[str]) -> list[str]:
    """The command for a shell, in lines."""
    first, *flags = map(_quote, command)
    result = [" ".join([first, *flags[:2]])]
    for flag in flags[2:]:
        if len(result[-1]) + len(flag) < 96:
            result[-1] += f" {flag}"
        else:
            result.append(f"  {flag}")
    return [f"{line} \\" for line in result[:-1]] + result[-1:]


def _quote(word: str) -> str:
    """As `shlex.quote`; control characters are written so that no terminal obeys."""
    if word.isprintable():
        return shlex.quote(word)
    data = word.encode("utf-8", "surrogateescape")
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}"
        for byte in data
    )
    return f"$'{plain}'"
