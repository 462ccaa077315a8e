"""SBD, more masks for PASCAL VOC's images: where its data are, or how to get them.

Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.
"""

import gzip
import os
import pathlib
import zlib

import tqdm

from fcn_jax import download
from fcn_jax.data import builder, files, names
from fcn_jax.errors import UserError

_ARCHIVE = "benchmark.tgz"
_URLS = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    f"semantic_contours/{_ARCHIVE}",
)
_CHECKSUM = "sha256:6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53"
_BLOCK = 2**20  # Bytes unpacked at a time.


def scan(
    source: str | os.PathLike, data_dir: str | os.PathLike
) -> tuple[files.Files, dict[str, list[builder.Item]]]:
    """Lists SBD's images and masks.

    Args:
        source: A folder that is, or contains at any depth, SBD's ``dataset``; or its
            archive, which is unpacked once; or "" to download that.
        data_dir: Where downloads, and the unpacked archive, are kept.

    Returns:
        The files, and the items of its lists "train" and "val".

    Raises:
        UserError: If SBD is not there, in part or in whole, or not to be had.
    """
    downloads = pathlib.Path(data_dir).expanduser() / "downloads"
    path = pathlib.Path(source or _download(downloads)).expanduser()
    found = files.open_files(_unpack(path, downloads) if _is_gzip(path) else path)
    root = _find_root(found)
    return found, {name: _items(found, root, name) for name in ("train", "val")}


def _download(downloads: pathlib.Path) -> pathlib.Path:
    path = downloads / _ARCHIVE
    download.fetch(
        _URLS,
        checksum=_CHECKSUM,
        path=path,
        remedy="and set config.data.sbd_source to the file",
    )
    return path


def _is_gzip(path: pathlib.Path) -> bool:
    """Looks at the bytes: some browsers unpack the archive and keep its name."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"
    except OSError:  # A folder, or what `files.open_files` tells of.
        return False


def _unpack(path: pathlib.Path, downloads: pathlib.Path) -> pathlib.Path:
    """Returns a plain .tar file of a compressed one, made unless it is there.

    It has the time of the archive, which tells whether it is this one's.
    """
    tar = downloads / f"{path.stem}.tar"
    part = tar.with_name(tar.name + ".part")
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with download.lock(tar):
            times = path.stat().st_atime_ns, path.stat().st_mtime_ns
            if tar.exists() and tar.stat().st_mtime_ns == times[1]:
                return tar
            with (
                path.open("rb") as packed,
                gzip.open(packed) as unpacked,
                part.open("wb") as file,
                tqdm.tqdm(
                    desc=f"Unpacking {path.name}",
                    total=path.stat().st_size,
                    unit="B",
                    unit_scale=True,
                ) as bar,
            ):
                while block := unpacked.read(_BLOCK):
                    file.write(block)
                    bar.update(packed.tell() - bar.n)
            os.utime(part, ns=times)
            os.replace(part, tar)
            return tar
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path} is damaged or incomplete ({error}); copy or download it again."
        ) from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be unpacked to {tar} ({error.strerror or error}); make "
            "room, or choose another folder for data."
        ) from error


def _find_root(found: files.Files) -> str:
    """Returns the folder of SBD's lists: "" or a name that ends in "/"."""
    roots = {name.rpartition("cls/")[0] for name in found.names if "cls/" in name}
    roots = [root for root in roots if f"{root}train.txt" in found.names]
    if len(roots) != 1:
        raise UserError(
            f"There is {'more than one' if roots else 'no'} SBD in {found.path}: "
            f"{len(roots)} folders have train.txt beside cls/; give the folder "
            f'benchmark_RELEASE, or the file {_ARCHIVE}; or "" to download it.'
        )
    return roots[0]


def _items(found: files.Files, root: str, split: str) -> list[builder.Item]:
    items = []
    where = f"{root}{split}.txt"
    if where not in found.names:
        raise UserError(
            f"There is no list {where} in {found.path}; copy or download SBD again."
        )
    for name in names.read_list(found, where):
        item = builder.Item(name, f"{root}img/{name}.jpg", (f"{root}cls/{name}.mat",))
        for file in (item.image, *item.masks):
            if file not in found.names:
                raise UserError(
                    f'The list {where} has "{name}", but there is no {file} in '
                    f"{found.path}; copy or download SBD again."
                )
        items.append(item)
    return items
