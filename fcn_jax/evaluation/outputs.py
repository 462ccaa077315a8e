"""What prediction writes: masks, overlays, probabilities, and a table of areas."""

import csv
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from PIL import Image

from fcn_jax import remote
from fcn_jax.data import images
from fcn_jax.errors import UserError
from fcn_jax.evaluation import sources
from fcn_jax.reporting import colors

AREAS = "areas.csv"
PROBABILITIES = {
    "": None,
    "npz": np.float16,
    "png": np.uint16,
}  # As what they are kept.
_STRIP = 2**22  # Pixels that are coloured or counted at a time.
_PART = ".part"  # Ends the name of a file that is not whole.
_LONGEST = 255  # Bytes in a file's name.


def file_name(text: str) -> str:
    """A class name for the name of a file: letters, digits, ``_``, ``-`` and ``.``."""
    return re.sub(r"[^\w.-]+", "_", text)[:30].strip("._") or "class"


class Outputs:
    """The results of each picture, in one folder.

    The mask is written last, and every file appears under its name when it is whole:
    where there is a mask, there is all.

    Attributes:
        folder: of the results.
        number: of files in it at the start.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        class_names: Sequence[str],
        palette: np.ndarray,
        *,
        multilabel: bool = False,
        probabilities: str = "",
    ):
        """Makes the folder and looks what it holds.

        Args:
            folder: of the results.
            class_names: by id.
            palette: uint8 [256,3].
            multilabel: whether there is a mask for each class.
            probabilities: a key of ``PROBABILITIES``.
        """
        self.folder = epath.Path(folder)
        self._names, self._palette = class_names, palette
        self._multilabel, self._probabilities = multilabel, probabilities
        self.folder.mkdir(parents=True, exist_ok=True)
        # In an object store, an empty folder does not exist.
        found = self.folder.iterdir() if self.folder.exists() else ()
        self._there = {path.name for path in found}
        self.number = len(self._there)

    def _of_classes(self, stem: str, what: str) -> list[str]:
        return [
            f"{stem}_{what}_{i:02d}_{file_name(name)}.png"
            for i, name in enumerate(self._names)
        ]

    def _masks(self, stem: str) -> list[str]:
        return (
            self._of_classes(stem, "mask") if self._multilabel else [f"{stem}_mask.png"]
        )

    def _maps(self, stem: str) -> list[str]:
        return {
            "": [],
            "npz": [f"{stem}_probabilities.npz"],
            "png": self._of_classes(stem, "probability"),
        }[self._probabilities]

    def is_done(self, stem: str) -> bool:
        """Whether all results of a picture were there at the start."""
        return self._there.issuperset(self._all(stem))

    def _all(self, stem: str) -> tuple[str, ...]:
        return *self._maps(stem), f"{stem}_overlay.png", *self._masks(stem)

    def require_names(self, stem: str) -> None:
        """Raises UserError where the names of a picture's results are too long."""
        longest = max(len(os.fsencode(name + _PART)) for name in self._all(stem))
        if longest > _LONGEST:
            raise UserError(
                f"The results of {sources.printable(stem)} would have names of "
                f"{longest} bytes, and {_LONGEST} are possible; shorten its name."
            )

    def write(
        self,
        stem: str,
        image: np.ndarray,
        ids: np.ndarray,
        probabilities: np.ndarray | None,
    ) -> None:
        """Writes the results of a picture.

        Args:
            stem: its name.
            image: RGB, uint8 [h,w,3].
            ids: class ids, uint8 [h,w]; multilabel: 0 or 1, uint8 [h,w,C].
            probabilities: [h,w,C], as ``PROBABILITIES`` has them; None: not wanted.

        Raises:
            UserError: a file cannot be written.
        """
        maps = self._maps(stem)
        if self._probabilities == "npz":
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer,
                probabilities=probabilities,
                class_names=np.array(self._names, np.str_),
            )
            self._write(maps[0], buffer.getbuffer())
        for i, name in enumerate(maps if self._probabilities == "png" else ()):
            self._write(name, _png(np.ascontiguousarray(probabilities[..., i])))
        overlay = np.empty_like(image)
        for part in _strips(image):
            overlay[part] = colors.overlay(image[part], ids[part], self._palette)
        self._write(f"{stem}_overlay.png", _png(overlay))
        for i, name in enumerate(self._masks(stem)):
            if self._multilabel:
                self._write(name, _png(255 * ids[..., i]))
            else:
                self._write(name, _png(ids, self._palette))

    def read(self, stem: str) -> np.ndarray:
        """The mask of a picture that is done, as ``write`` gets it.

        Raises:
            UserError: it is damaged.
        """
        masks = []
        for name in self._masks(stem):
            path = self.folder / name
            masks.append(images.read_mask(path.read_bytes(), sources.printable(path)))
        shapes = {mask.shape for mask in masks}
        highest = 255 if self._multilabel else len(self._names) - 1
        if len(shapes) > 1 or any(mask.max() > highest for mask in masks):
            raise UserError(
                f"{sources.printable(self.folder / name)} is no mask of these "
                f"{len(self._names)} classes; choose another --output, or --overwrite."
            )
        return np.stack(masks, -1) // 255 if self._multilabel else masks[0]

    def write_areas(self, areas: "Areas") -> None:
        """Writes ``areas.csv``; rows of pictures of earlier runs stay.

        Raises:
            UserError: it cannot be written.
        """
        path, header = self.folder / AREAS, areas.header()
        rows = areas.rows()
        if AREAS in self._there:
            text = path.read_bytes().decode("utf-8", "replace")
            try:
                before = list(csv.reader(io.StringIO(text, newline="")))
            except csv.Error:  # Whatever it is, it is none of ours.
                before = []
            if before[:1] == [header]:
                rows = {row[0]: row for row in before[1:] if row} | rows
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([header, *(rows[name] for name in sorted(rows))])
        self._write(AREAS, buffer.getvalue().encode("utf-8", "backslashreplace"))

    def _write(self, name: str, data: bytes | memoryview) -> None:
        """Writes a file whole or not at all."""
        path = self.folder / name
        if remote.is_url(path):
            path.write_bytes(bytes(data))  # An object appears when it is whole.
            return
        path = pathlib.Path(path)
        part = path.with_name(path.name + _PART)
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            raise UserError(
                f"{sources.printable(path)} cannot be written ({error.strerror}); mend "
                "that or choose another --output, and start the same command again: "
                "what is done stays."
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _strips(image: np.ndarray) -> Iterator[slice]:
    """Slices of rows, so that what is computed of large images needs little memory."""
    rows = max(1, _STRIP // image.shape[1])
    return (slice(i, i + rows) for i in range(0, len(image), rows))


def _png(pixels: np.ndarray, palette: np.ndarray | None = None) -> memoryview:
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette.tobytes())
    picture.save(buffer, "PNG")
    return buffer.getbuffer()


class Areas:
    """How many pixels each class has in each picture."""

    def __init__(self, class_names: Sequence[str]):
        self._names = class_names
        self._found: dict[str, tuple[tuple[int, int], np.ndarray]] = {}

    def add(self, name: str, ids: np.ndarray) -> None:
        """Counts the pixels of a picture's mask, see ``Outputs.write``."""
        pixels = np.zeros(len(self._names), np.int64)
        for part in _strips(ids):
            if ids.ndim == 3:
                pixels += np.count_nonzero(ids[part], axis=(0, 1))
            else:
                pixels += np.bincount(ids[part].ravel(), minlength=len(pixels))
        self._found[name] = ids.shape[:2], pixels

    def header(self) -> list[str]:
        """The names of the columns."""
        of_classes = [
            f"{n} {what}" for n in self._names for what in ("pixels", "share")
        ]
        return [_harmless(text) for text in ("name", "width", "height", *of_classes)]

    def rows(self) -> dict[str, list[str]]:
        """By the first field: the fields of each picture."""
        rows = {}
        for name, ((height, width), pixels) in self._found.items():
            # As it will be read again.
            name = name.encode("utf-8", "backslashreplace").decode()
            row = [_harmless(name), str(width), str(height)]
            for n in pixels:
                row += [str(n), f"{n / (height * width):.6f}"]
            rows[row[0]] = row
        return rows

    def table(self, most: int = 12) -> str:
        """The mean share of each class over all pictures, the largest first."""
        shares = np.array([n / np.prod(size) for size, n in self._found.values()])
        means, present = shares.mean(0), (shares > 0).sum(0)
        order = np.argsort(-means, kind="stable")
        names = [sources.printable(name) for name in self._names]
        first = max(len("class"), *(len(names[i]) for i in order[:most]))
        lines = [f"{'class':<{first}}  mean share  in images"]
        lines += [
            f"{names[i]:<{first}}  {means[i]:>10.2%}  {present[i]:>9,}"
            for i in order[:most]
        ]
        if len(order) > most:
            lines.append(f"and {len(order) - most} more in {AREAS}")
        return "\n".join(lines)

    def __len__(self) -> int:
        return len(self._found)


def _harmless(field: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{field}" if field[:1] in tuple("=+-@\t\r") else field
