"""Large files from the web: mirrors, resuming and a checksum."""

import contextlib
import fcntl
import hashlib
import http
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

import tqdm

from fcn_jax.errors import UserError

_BLOCK = 2**20  # Bytes read at a time, at most.
_TIMEOUT = 30  # Seconds to wait for a connection, or for more bytes.


class _MirrorError(Exception):
    """What keeps one mirror from giving the file."""


def fetch(
    urls: Sequence[str],
    *,
    checksum: str,
    path: str | os.PathLike,
    size: int | None = None,
    remedy: str = "",
):
    """Downloads a file to ``path``, unless it is there.

    What arrives is kept in ``path + ".part"`` until it is whole and its checksum is
    right, and is continued from there, at any mirror, now or in the next run. Of
    several processes that want the same file, one downloads it and the others wait.

    Args:
        urls: Where the same file can be had; tried in turn.
        checksum: "sha256:" or "md5:" and hexadecimal digits; the first ones are enough,
            since some publishers tell no more.
        path: Where it shall be. Its folder is made.
        size: Its size in bytes, if known.
        remedy: What to do with the file if it is downloaded by hand; the end of a
            sentence that began with "download it by hand".

    Raises:
        UserError: If no mirror gives the file, it cannot be written, or another file is
            in its place.
    """
    path = pathlib.Path(path)
    try:
        if path.exists():
            return _require_right(path, checksum)
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path):
            return _fetch(urls, checksum, path, size, remedy or f"to {path}")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); make room or "
            "choose another folder. What was downloaded is kept, and continued."
        ) from error


def _fetch(
    urls: Sequence[str],
    checksum: str,
    path: pathlib.Path,
    size: int | None,
    remedy: str,
):
    if path.exists():  # Another process was faster.
        return
    part = path.with_name(path.name + ".part")
    # A wrong checksum does not tell which bytes are wrong: all are dropped, and the
    # next mirror is the first. What a former run left is not held against a mirror.
    orders = [[*urls[i:], *urls[:i]] for i in range(len(urls))]
    if part.exists():
        orders.insert(0, orders[0])
    for order in orders:
        _receive_all(order, part, size, remedy)
        if matches(part, checksum):
            os.replace(part, path)
            return
        part.unlink()
    raise UserError(
        f"{path.name} was downloaded, but its checksum is not {checksum}: it was "
        f"damaged on the way or replaced at {' and '.join(urls)}. Try later, or "
        f"download it by hand {remedy}."
    )


def _require_right(path: pathlib.Path, checksum: str):
    """A file that was put there by hand may be an error page, or another version."""
    if not matches(path, checksum):
        raise UserError(
            f"{path} is not the file that was published: its checksum is not "
            f"{checksum}; delete it, to download it again, or put the right one there."
        )


def _receive_all(urls: list[str], part: pathlib.Path, size: int | None, remedy: str):
    """Completes ``part`` from mirrors that may fail; ends when none adds anything."""
    before = -1
    while before < _size(part):
        before = _size(part)
        problems = []
        for url in urls:
            try:
                return _receive(url, part, size)
            except _MirrorError as error:
                problems.append(f"{url}: {error}")
    raise UserError(
        f"{part.stem} could not be downloaded ({'; '.join(problems)}). If this machine "
        f"has a network, run again: the download continues at byte {_size(part)}. Else "
        f"download it by hand from one of these addresses {remedy}."
    )


def _receive(url: str, part: pathlib.Path, size: int | None):
    """Appends to ``part`` what is missing of the file."""
    have = _size(part)
    if size is not None and have >= size:
        return  # The checksum tells whether these are the right bytes.
    headers = {"User-Agent": "fcn_jax"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    with contextlib.ExitStack() as stack:
        with _mirror_errors():
            try:
                response = urllib.request.urlopen(request, timeout=_TIMEOUT)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    return  # No bytes are left.
                raise
        stack.enter_context(response)
        # A server that cannot continue sends the file from its start.
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if continues else 0
        length = response.headers["Content-Length"]
        total = size if length is None else start + int(length)
        if continues and not _range(response).startswith(f"bytes {have}-"):
            raise _MirrorError(f"sent {_range(response)} instead of bytes {have}-")
        if size is not None and size != total:
            raise _MirrorError(f"has a file of {total} bytes, not {size}")
        file = stack.enter_context(part.open("ab"))
        bar = stack.enter_context(
            tqdm.tqdm(
                desc=part.stem,
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
            )
        )
        position = start
        while block := _read(response):
            file.write(block[max(0, have - position) :])
            position += len(block)
            bar.update(len(block))
    if total is not None and position < total:
        raise _MirrorError(f"the connection ended at byte {position} of {total}")


def _read(response: http.client.HTTPResponse) -> bytes:
    with _mirror_errors():
        return response.read1(_BLOCK)  # All that came, even if no more comes.


def _range(response: http.client.HTTPResponse) -> str:
    return response.headers["Content-Range"] or ""


@contextlib.contextmanager
def _mirror_errors() -> Iterator[None]:
    """Tells errors of the network from those of the disk, which are OSErrors too."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise _MirrorError(f"{code}{reason or type(error).__name__}") from error


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
    """Holds the file ``<path>.lock``; the system frees it if the process dies."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _size(part: pathlib.Path) -> int:
    return part.stat().st_size if part.exists() else 0


def matches(path: pathlib.Path, checksum: str) -> bool:
    """Returns whether a file has a checksum, as `fetch` takes it."""
    algorithm, digits = checksum.split(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest().startswith(digits)
