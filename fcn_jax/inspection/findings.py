"""What is wrong or worth a look in a folder of images and masks, kind by kind."""

import dataclasses
from collections.abc import Iterable

from fcn_jax.inspection.kinds import KINDS, Level


@dataclasses.dataclass
class Finding:
    """Every case of one kind.

    Attributes:
        kind: A key of `KINDS`.
        level: How much it matters.
        title: What was found.
        remedy: What to do.
        names: The cases, each with what is particular to it; as found, not escaped.
        count: What the title is preceded by; None: nothing.
    """

    kind: str
    level: Level
    title: str
    remedy: str
    names: list[str]
    count: int | str | None


class Findings:
    """Collects cases; each kind has one `Finding`."""

    def __init__(self):
        self._found: dict[str, Finding] = {}

    def add(
        self,
        kind: str,
        *names: str,
        count: int | str | None = None,
        remedy: str | None = None,
        level: Level | None = None,
    ) -> None:
        """Adds cases of a kind.

        Args:
            kind: A key of `KINDS`.
            *names: The cases.
            count: What stands before the title; None: the number of all cases.
            remedy: Another than the kind's.
            level: Another than the kind's.
        """
        known = KINDS[kind]
        finding = self._found.setdefault(
            kind, Finding(kind, known.level, known.title, known.remedy, [], None)
        )
        finding.names += names
        finding.count = count if count is not None else len(finding.names) or None
        if remedy is not None:
            finding.remedy = remedy
        if level is not None:
            finding.level = level

    def sorted(self) -> list[Finding]:
        """All findings, in the order of `KINDS`."""
        return [self._found[kind] for kind in KINDS if kind in self._found]

    def of(self, *levels: Level) -> list[Finding]:
        """The findings of some levels."""
        return [finding for finding in self.sorted() if finding.level in levels]

    def names(self, kind: str) -> list[str]:
        """The cases of a kind."""
        return self._found[kind].names if kind in self._found else []


def printable(name: str) -> str:
    r"""Escapes what a terminal would obey: control characters become \n, \x1b, ...."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


def first_few(names: Iterable[str], most: int = 3, width: int = 60) -> str:
    """The first names, escaped and shortened, for one line of a report."""
    names = list(names)
    shown = [shorten(printable(name), width) for name in names[:most]]
    return ", ".join(shown) + (", ..." if len(names) > most else "")


def shorten(text: str, width: int) -> str:
    """Cuts the middle out of a long text, so that it has ``width`` characters."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def titled(finding: Finding) -> str:
    """The title after its number, as in "3 images without a mask"."""
    one = finding.count == 1
    title = finding.title
    for plural in ("(es)", "(s)"):
        title = title.replace(plural, "" if one else plural[1:-1])
    count = f"{finding.count:,}" if isinstance(finding.count, int) else finding.count
    return f"{count} {title}".strip()
