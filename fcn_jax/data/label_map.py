"""What the values or the colours of masks mean: a map to class ids.

Written as pairs ``VALUE:ID`` with commas or line breaks between, where VALUE is a grey
value, a range of them (``1-150:0`` maps 1 to 0, 2 to 1 and so on) or a colour
``#rrggbb``, and ID a class id or ``void``.
"""

import dataclasses
import pathlib
import re

import numpy as np

from fcn_jax.data import labels
from fcn_jax.errors import UserError

_PAIR = re.compile(
    r"(?:(\d{1,5})(?:-(\d{1,5}))?|#([0-9a-fA-F]{6}))\s*:\s*(\d{1,3}|void)"
)
_UNKNOWN = 256  # In a table: a value that the map does not have.
_MAX_FILE = 1 << 20  # Bytes.


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """A map from grey values, or from colours, to class ids.

    Attributes:
        ids: The class id, or IGNORE, of every value; colours are 0xrrggbb.
        colours: Whether the values are colours.
    """

    ids: dict[int, int]
    colours: bool

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
        if self.colours:
            wide = pixels.astype(np.uint32)
            values = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
            known = np.array(sorted(self.ids), np.uint32)
            place = np.minimum(np.searchsorted(known, values), len(known) - 1)
            table = np.array([self.ids[v] for v in known.tolist()], np.uint16)
            ids = np.where(known[place] == values, table[place], _UNKNOWN)
        else:
            values = pixels
            table = np.full(1 << 16, _UNKNOWN, np.uint16)
            table[list(self.ids)] = list(self.ids.values())
            ids = table[pixels]
        if (ids == _UNKNOWN).any():
            y, x = np.argwhere(ids == _UNKNOWN)[0].tolist()
            raise UserError(
                f"The mask {name} has the value {self._show(int(values[y, x]))} at "
                f"column {x}, row {y}, which data.label_map does not have; add it with "
                'its class id, or with "void".'
            )
        return ids.astype(np.uint8)

    def _show(self, value: int) -> str:
        return f"#{value:06x}" if self.colours else str(value)

    def __str__(self) -> str:
        """The shortest text that `parse` makes this map of."""
        runs = []  # First value, last value, id of the first.
        for value, i in sorted(self.ids.items()):
            if runs and not self.colours:
                first, last, start = runs[-1]
                follows = value == last + 1 and i != labels.IGNORE != start
                if follows and i == start + value - first:
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
    what = "data.label_map"
    if ":" not in text or (base is not None and (base / text).is_file()):
        path = pathlib.Path(text).expanduser()
        if base is not None and not path.is_file():
            path = base / path
        text, what = _read(path), f"{what} ({path})"
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
        first, last, colour, target = match.groups()
        kinds.add(colour is not None)
        if len(kinds) == 2:
            raise UserError(
                f"{what} has both grey values and colours; write pairs of one kind."
            )
        values = (
            [int(colour, 16)] if colour else range(int(first), int(last or first) + 1)
        )
        start = labels.IGNORE if target == "void" else int(target)
        for step, value in enumerate(values):
            if value in ids:
                raise UserError(
                    f"{what} has the value of {pair!r} twice; remove one of them."
                )
            ids[value] = start if target == "void" else start + step
        if not len(values) or (not colour and max(values) > 65535):
            raise UserError(
                f"{what} has {pair!r}, which is no value, or range of values, of 0 to "
                "65535; correct it."
            )
    if not kinds:
        raise UserError(f"{what} has no pair; write VALUE:ID pairs.")
    return LabelMap(_checked(ids, what), kinds.pop())


def _checked(ids: dict[int, int], what: str) -> dict[int, int]:
    classes = sorted({i for i in ids.values() if i != labels.IGNORE})
    if not classes or classes[-1] >= labels.IGNORE:
        raise UserError(
            f"{what} maps to {'no class' if not classes else f'class {classes[-1]}'}; "
            f"class ids are 0 to {labels.IGNORE - 1}."
        )
    missing = sorted(set(range(classes[-1])) - set(classes))
    if missing:
        raise UserError(
            f"{what} maps nothing to class {missing[0]}, but something to class "
            f"{classes[-1]}; class ids must be 0, 1, 2 and so on without a gap."
        )
    return ids


def _read(path: pathlib.Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise ValueError("it is larger than 1 MB")
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:  # Also what is no UTF-8.
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"data.label_map={path} cannot be read ({reason}); write pairs such as "
            "0:0,255:1, or give a file of them."
        ) from error
