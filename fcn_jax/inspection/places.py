"""The folders of a data set and the files in them."""

import collections
import pathlib
import re
from collections.abc import Iterable

from fcn_jax.data import files as files_lib
from fcn_jax.data import names as names_lib
from fcn_jax.errors import UserError
from fcn_jax.inspection.findings import Findings

# Files that can be looked at, even where training takes fewer types as masks.
ANY = tuple(dict.fromkeys((*names_lib.IMAGE_SUFFIXES, *names_lib.MASK_SUFFIXES)))
_MASK_WORDS = re.compile(r"mask|label|annot|ann_|seg|gt|target|truth", re.IGNORECASE)


def has_both(found: files_lib.Files, image_dir: str, mask_dir: str) -> bool:
    """Tells whether both folders exist."""
    return all((found.path / name).is_dir() for name in (image_dir, mask_dir))


def names_below(found: files_lib.Files, name: str) -> Iterable[str]:
    """The names of the files below a folder, which may be absolute or in a .tar."""
    if not found.path.is_dir():
        return [n[len(name) + 1 :] for n in found.names if n.startswith(f"{name}/")]
    try:
        return files_lib.open_files(found.path / name).names
    except UserError:
        return []


def direct(found: files_lib.Files, name: str) -> list[str]:
    """The images or masks directly in a folder."""
    names = names_below(found, name)
    return [n for n in names if "/" not in n and suffix(n) in ANY]


def class_folders(found: files_lib.Files, mask_dir: str) -> tuple[str, ...]:
    """The folders with files in the folder of the masks."""
    names = names_below(found, mask_dir)
    inside = {n.split("/")[0] for n in names if n.count("/") == 1}
    return tuple(sorted(inside))


def suffix(name: str) -> str:
    """The ending, in lower case."""
    return pathlib.PurePosixPath(name).suffix.lower()


def in_folder(
    found: files_lib.Files,
    where: str,
    suffixes: Iterable[str],
    nested: bool,
    findings: Findings,
) -> dict[str, str]:
    """The files of a folder by stem; with ``nested`` also those of its subfolders."""
    by_stem = {}
    for name in sorted(names_below(found, where)):
        if "/" in name and not nested:
            continue
        full = str(pathlib.PurePosixPath(where, name))
        if suffix(name) not in suffixes:
            findings.add("other_files", full)
            continue
        stem = name[: -len(suffix(name))]
        if stem in by_stem:
            findings.add("same_stem", full)
        else:
            by_stem[stem] = full
            if not name.isprintable():
                findings.add("bad_name", full)
    return by_stem


def folders(names: Iterable[str]) -> list[str]:
    """The folders that have images, with their number of images."""
    counts = collections.Counter(
        str(pathlib.PurePosixPath(name).parent) for name in names if suffix(name) in ANY
    )
    return [f"{name} ({count} images)" for name, count in sorted(counts.items())]


def guess(names: Iterable[str]) -> tuple[str, str] | None:
    """The two folders whose files have the same names, if only two have."""
    stems = collections.defaultdict(set)
    for name in names:
        path = pathlib.PurePosixPath(name)
        if path.suffix.lower() in ANY:
            stems[str(path.parent)].add(path.stem)
    images = [name for name in stems if not _MASK_WORDS.search(name)]
    masks = [name for name in stems if _MASK_WORDS.search(name)]
    pairs = [
        (image, mask)
        for image in images
        for mask in masks
        if 2 * len(stems[image] & stems[mask])
        > min(map(len, (stems[image], stems[mask])))
    ]
    return pairs[0] if len(pairs) == 1 else None
