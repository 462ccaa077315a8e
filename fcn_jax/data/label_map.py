"""What the values or the colours of masks mean: a map to class ids.

Written as pairs ``VALUE:ID`` with commas or line breaks between, where VALUE is a grey
value, a range of them (``1-150:0`` maps 1 to 0, 2 to 1 and so on) or a colour
``#rrggbb``, and ID a class id or ``void``. 255 means void, too, as everywhere.
"""

import dataclasses
import os
import pathlib
import re

import numpy as np

from fcn_jax.data import labels
from fcn_jax.errors import UserError

_PAIR = re.compile(
    r"(?:(\d{1,5})(?:-(\d{1,5}))?|#([0-9a-fA-F]{6}))\s*:\s*(\d{1,3}|void)"
)
_SETTING = "data.label_map"
_MAX_FILE = 1 << 20  # Bytes.


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """A map from grey values, or from colours, to class ids.

    Attributes:
        ids: The class id, or IGNORE, of every value; colours are 0xrrggbb.
        colours: Whether the values are colours.
        where: What has the map, for messages.
    """

    ids: dict[int, int]
    colours: bool
    where: str = dataclasses.field(default=_SETTING, compare=False)

    @property
    def num_classes(self) -> int:
        """The highest class id and one."""
        return max((i for i in self.ids.values() if i != labels.IGNORE), default=-1) + 1

    def apply(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """Returns the class ids of a mask.

        Args:
            pixels: Grey values, integer [h, w] of 0 to 65535, or where the map is of
                colours RGB, uint8 [h, w, 3].
            name: Of the mask, for messages.

        Returns:
            uint8 [h, w]; IGNORE for void.

        Raises:
            UserError: If a value is not in the map.
        """
        values = pixels
        if self.colours:
            wide = pixels.astype(np.uint32)
            values = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        # The ids and one, so that 0 is a value that the map does not have. The system
        # gives a table of zeros its memory page by page, as colours come up.
        table = np.zeros(1 << (24 if self.colours else 16), np.uint16)
        table[list(self.ids)] = np.array(list(self.ids.values())) + 1
        found = table[values]
        if not found.all():
            y, x = np.argwhere(found == 0)[0].tolist()
            raise UserError(
                f"The mask {name} has the value {self._show(int(values[y, x]))} at "
                f"column {x}, row {y}, which {self.where} does not have; add it with "
                'its class id, or with "void".'
            )
        return (found - 1).astype(np.uint8)

    def _show(self, value: int) -> str:
        return f"#{value:06x}" if self.colours else str(value)

    def __str__(self) -> str:
        """The shortest text that `parse` makes this map of."""
        runs = []  # First value, last value, id of the first.
        for value, i in sorted(self.ids.items()):
            if runs and not self.colours:
                first, last, start = runs[-1]
                void = i == start == labels.IGNORE
                counts_on = start != labels.IGNORE and i == start + value - first
                if value == last + 1 and (void or counts_on):
                    runs[-1] = first, value, start
                    continue
            runs.append((value, value, i))
        return ",".join(
            (self._show(first) if first == last else f"{first}-{last}")
            + f":{'void' if i == labels.IGNORE else i}"
            for first, last, i in runs
        )


def parse(text: str, base: pathlib.Path | None = None) -> LabelMap:
    """Reads a map from its text, or from the file that the text names.

    In a file blank lines and what follows ``//`` do not count.

    Args:
        text: Pairs, or the path of a file of pairs.
        base: The folder that the path is relative to, if there is no such file here.

    Raises:
        UserError: If it is neither, or the pairs make no map to classes 0, 1, 2, ...
    """
    what, file = _SETTING, _find(text, base)
    if file or ":" not in text:
        text, what = _read(file or text), f"{what} ({file})"
    lines = (line.split("//")[0] for line in text.splitlines())
    pairs = [pair.strip() for line in lines for pair in line.split(",") if pair.strip()]
    ids = {}
    kinds = set()
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None:
            raise UserError(
                f"{what} has {pair[:60]!r}; write VALUE:ID, such as 255:1, 0:void, "
                "1-20:0 or #ff0000:1, with commas between."
            )
        kinds.add(pair.startswith("#"))
        if len(kinds) == 2:
            raise UserError(
                f"{what} has both grey values and colours; write pairs of one kind."
            )
        for value, i in _meant(match, what):
            if value in ids:
                raise UserError(
                    f"{what} has the value of {pair!r} twice; remove one of them."
                )
            ids[value] = i
    if not kinds:
        raise UserError(f"{what} has no pair; write VALUE:ID pairs.")
    return LabelMap(_checked(ids, what), kinds.pop())


def _meant(pair: re.Match, what: str) -> list[tuple[int, int]]:
    """Returns the values of a pair, each with its id."""
    first, last, colour, target = pair.groups()
    if colour:
        first = last = int(colour, 16)
    else:
        first, last = int(first), int(last or first)
        if not first <= last <= 65535:
            raise UserError(
                f"{what} has {pair[0]!r}, which is no value, or range of values, of 0 "
                "to 65535; correct it."
            )
    if target == "void":
        return [(value, labels.IGNORE) for value in range(first, last + 1)]
    end = int(target) + last - first
    if end > labels.IGNORE or (last > first and end == labels.IGNORE):
        raise UserError(
            f"{what} has {pair[0]!r}, which leads to class {end}; class ids are 0 to "
            f"{labels.IGNORE - 1}."
        )
    return [(value, value - first + int(target)) for value in range(first, last + 1)]


def _checked(ids: dict[int, int], what: str) -> dict[int, int]:
    classes = sorted({i for i in ids.values() if i != labels.IGNORE})
    if not classes:
        raise UserError(
            f"{what} maps to no class, only to void; give class ids, from 0 on."
        )
    missing = sorted(set(range(classes[-1])) - set(classes))
    if missing:
        raise UserError(
            f"{what} maps nothing to class {missing[0]}, but something to class "
            f"{classes[-1]}; class ids must be 0, 1, 2 and so on without a gap."
        )
    return ids


def _find(text: str, base: pathlib.Path | None) -> str:
    """Returns the path of the file that a text names, "" if there is none."""
    path = os.path.expanduser(text)
    paths = [path] if base is None else [path, os.path.join(base, path)]
    # Unlike pathlib's, this is false of what is no path, such as a long text of pairs.
    return next(filter(os.path.isfile, paths), "")


def _read(path: str) -> str:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is no file")
        if os.path.getsize(path) > _MAX_FILE:
            raise ValueError("it is larger than 1 MB")
        return pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, ValueError) as error:  # Also what is no UTF-8.
        reason = getattr(error, "strerror", None) or error
        shown = repr(path if len(path) < 200 else f"{path[:60]}...")
        raise UserError(
            f"{_SETTING}={shown} cannot be read ({reason}); write pairs such as "
            "0:0,255:1, or give a file of them."
        ) from error
