"""Lists of a data set's files: by the names in a list, or those of a folder."""

import hashlib
import pathlib
import re
import unicodedata
from collections.abc import Container, Iterable, Sequence

from fcn_jax.data import files as files_lib
from fcn_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # Those that keep every value.


def suffixes(what: str) -> Sequence[str]:
    """Returns the endings that an "image" or a "mask" may have."""
    return IMAGE_SUFFIXES if what == "image" else MASK_SUFFIXES


def read_list(
    files: files_lib.Files, where: str, known: Container[str] = ()
) -> list[str]:
    """Returns the name on each line that is not blank.

    That is the whole line if it is a known name, which may have spaces, or else its
    first word, where that is known or nothing is: VOC's lists of one class have a
    number after the name.

    Raises:
        UserError: If the list has no name, one twice, or one that leads elsewhere.
    """
    split = pathlib.PurePosixPath(where).stem
    if not is_split(split):
        raise UserError(
            f'The list {printable(where)} cannot name a split "{printable(split)}"; '
            'give it a name of letters, digits, "_" and "-", other than "all".'
        )
    lines = [line.strip() for line in read_lines(files, where) if line.strip()]
    names = [_find(line, known) for line in lines]
    if not names:
        raise UserError(
            f"The list {where} names no image; add the names of the split's images, "
            "without their endings, one a line, or remove the list."
        )
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(
                f'The list {where} has "{printable(name)}" twice; remove one.'
            )
        seen.add(name)
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f'The list {where} has "{printable(name)}", which leads out of the '
                "folder of the images; list the names of images inside it, without "
                "their endings."
            )
    return names


def is_split(name: str) -> bool:
    """Tells whether a split may be called so: TFDS takes no other names."""
    return bool(re.fullmatch(r"\w[\w-]*", name)) and name != "all"


def printable(name: str) -> str:
    """Returns a name with what cannot be printed escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _find(line: str, known: Container[str]) -> str:
    """Returns the name on a line of a list."""
    if not known:
        return line.split()[0]
    for name in (line, line.split()[0]):
        # A letter with an accent is one character or two, which look the same.
        for form in (name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))):
            if form in known:
                return form
    return line


def by_stem(
    names: Iterable[str], folder: str, suffixes: Sequence[str]
) -> dict[str, str]:
    """Returns the files below a folder that have one of the suffixes.

    Keys are the names below the folder, without the suffix.

    Raises:
        UserError: If two names differ by the suffix alone, or one cannot be printed.
    """
    found = {}
    for name in sorted(names):
        path = pathlib.PurePosixPath(name)
        if name.startswith(folder) and path.suffix.lower() in suffixes:
            stem = name[len(folder) : -len(path.suffix)]
            if not name.isprintable():
                # A line break in a name would break messages, lists and logs. Python
                # marks bytes that are no UTF-8 by what cannot be printed, either.
                raise UserError(
                    f"The name of the file {ascii(name)} has characters that cannot be "
                    "printed, or is not UTF-8; rename it."
                )
            if stem in found:
                raise UserError(
                    f"{found[stem]} and {name} have the same name but for the ending; "
                    "rename or remove one."
                )
            found[stem] = name
    return found


def in_folder(
    files: files_lib.Files, folder: str, what: str, hint: str = ""
) -> dict[str, str]:
    """Returns the images or masks directly in a folder, by stem.

    Raises:
        UserError: If there are none, with the hint; or as `by_stem`.
    """
    # Listed by itself, since it may be absolute, or a link to some other place.
    names = files_lib.open_files(files.path / folder).names
    direct = [name for name in names if "/" not in name]
    found = by_stem(direct, "", suffixes(what))
    if not found:
        raise UserError(
            f"{files.path / folder} has no {what} of type "
            f"{', '.join(suffixes(what))}; put the {what}s directly into it{hint}."
        )
    return {stem: str(pathlib.PurePath(folder, name)) for stem, name in found.items()}


def refuse_unmatched(
    what: str,
    found: dict[str, str],
    other: str,
    others: dict[str, str],
    other_dir: str,
) -> None:
    """Raises UserError if an image has no mask, or a mask no image."""
    missing = sorted(found.keys() - others.keys())
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} {what}s have no {other}, the first is "
            f"{found[missing[0]]}; put the {other} named {missing[0]} (of type "
            f"{', '.join(suffixes(other))}) into {other_dir}, or remove the {what}."
        )


def split_at_random(
    names: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[str]]:
    """Splits names into "train" and "val", each in the order given.

    Raises:
        UserError: If there are too few, or the share is none.
    """
    if not 0 < val_fraction < 1:
        raise UserError(
            f"The share of images that validate is {val_fraction}; it must be above 0 "
            "and below 1."
        )
    if len(names) < 2:
        raise UserError(
            f"There is {len(names)} image; at least 2 are needed, one to train and "
            "one to validate."
        )
    num_val = min(max(1, round(len(names) * val_fraction)), len(names) - 1)

    # The order of hashes: a new image moves hardly any other to the other split.
    def key(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    val = set(sorted(names, key=key)[:num_val])
    return {
        "train": [name for name in names if name not in val],
        "val": [name for name in names if name in val],
    }


def read_lines(files: files_lib.Files, where: str) -> list[str]:
    """Returns the lines of a text file in UTF-8; raises UserError."""
    try:
        text = files.read(where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{files.path / where} is no text in UTF-8 ({error}); save it as such."
        ) from error
    return text.rstrip().splitlines()
