"""The files below a folder or inside a .tar file, read in place, by relative name."""

import abc
import contextlib
import os
import pathlib
import posixpath
import stat
import tarfile
from collections.abc import Iterator

from fcn_jax.errors import UserError

_BLOCK = 512  # Bytes; a tar file is made of such, and ends with blocks of zeros.


class Files(abc.ABC):
    """Files by name; may be used by several threads, and pickled.

    Attributes:
        path: The folder or the .tar file.
        names: Names relative to it, with "/" between folders on every system. Hidden
            files and folders (".DS_Store", "._image.jpg") are left out.
    """

    path: pathlib.Path
    names: set[str]

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """Returns a file's content; raises UserError if it can no longer be read."""

    @abc.abstractmethod
    def stat(self, name: str) -> tuple[int, int]:
        """Returns a file's size and the time of its last change in nanoseconds."""


def open_files(path: str | os.PathLike) -> Files:
    """Lists the files of a folder or of an uncompressed .tar file.

    Raises:
        UserError: If there is neither at ``path``, or it is damaged or unreadable.
    """
    path = pathlib.Path(path).expanduser()
    try:
        if path.is_dir():
            return _Folder(path)
        if path.is_file():
            return _Tar(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    raise UserError(
        f"{path} does not exist; the source must be a folder or a .tar file."
    )


def join(parts: dict[str, Files]) -> Files:
    """Returns several `Files` as one, each below a folder of the name given."""
    return _Joined(parts)


class _Folder(Files):
    """The files of a folder and its subfolders; links stand for what they lead to."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.names = set(_walk(path, "", frozenset()))

    def read(self, name: str) -> bytes:
        self.stat(name)
        with self._explained(name):
            return (self.path / name).read_bytes()

    def stat(self, name: str) -> tuple[int, int]:
        with self._explained(name):
            found = (self.path / name).stat()
            if not stat.S_ISREG(found.st_mode):
                # Such as a pipe, or a link to a device, which may never end.
                raise OSError("it is no file")
        return found.st_size, found.st_mtime_ns

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        path = self.path / name
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            if isinstance(error, FileNotFoundError) and path.is_symlink():
                reason = f"it is a link to {os.readlink(path)!r}, which does not exist"
            shown = str(path) if str(path).isprintable() else ascii(str(path))
            raise UserError(
                f"{shown} cannot be read: {reason}. Mend or remove it."
            ) from error


def _walk(
    folder: str | os.PathLike, prefix: str, above: frozenset[str]
) -> Iterator[str]:
    """Yields the names of the files below a folder, each after ``prefix``.

    A link that leads back to one of the folders ``above`` it, or to one that holds
    these (as a link to "/" does), is left out.
    """
    place = os.path.realpath(folder)
    if any(os.path.commonpath([place, other]) == place for other in above):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            if os.path.isdir(entry):  # Unlike `entry.is_dir`, never raises.
                yield from _walk(entry, f"{prefix}{entry.name}/", above | {place})
            else:
                yield prefix + entry.name


class _Tar(Files):
    """The plain files inside an uncompressed .tar file.

    The time of the last change is that of the .tar file, so that a file put in its
    place counts as a change of all that it holds.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._where = {}  # Offset and size of every file.
        self._time = path.stat().st_mtime_ns
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    name = posixpath.normpath(member.name)
                    hidden = any(map(_hidden, name.split("/")))
                    if member.isreg() and not member.issparse() and not hidden:
                        self._where[name] = member.offset_data, member.size
                end = archive.offset
        except tarfile.TarError as error:
            raise UserError(
                f"{path} is damaged, incomplete or not an uncompressed .tar file "
                f"({error}). Unpack a compressed one; copy or download a damaged one "
                "again."
            ) from error
        # `tarfile` takes the first bad header for the end; the true end is zeros.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise UserError(
                    f"{path} is damaged or incomplete: no file and no end of the "
                    f"archive at byte {end} of {path.stat().st_size}. Copy or download "
                    "it again."
                )
        self.names = set(self._where)

    def read(self, name: str) -> bytes:
        offset, size = self._find(name)
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error}") from error
        if len(data) != size:
            raise UserError(f"{self.path} became shorter while it was read.")
        return data

    def stat(self, name: str) -> tuple[int, int]:
        return self._find(name)[1], self._time

    def _find(self, name: str) -> tuple[int, int]:
        if name not in self._where:
            raise UserError(f"{self.path} has no file {name}; use an archive that has.")
        return self._where[name]


class _Joined(Files):
    """Several `Files`; the path is the first's."""

    def __init__(self, parts: dict[str, Files]):
        self._parts = parts
        self.path = next(iter(parts.values())).path
        self.names = {f"{p}/{name}" for p, part in parts.items() for name in part.names}

    def read(self, name: str) -> bytes:
        part, _, rest = name.partition("/")
        return self._parts[part].read(rest)

    def stat(self, name: str) -> tuple[int, int]:
        part, _, rest = name.partition("/")
        return self._parts[part].stat(rest)


def _hidden(name: str) -> bool:
    """Also true of ".." and of the empty start of an absolute name."""
    return name.startswith(".") or not name
