"""Writes configuration.md, the reference of all settings, from configs/default.py.

python docs/configuration.py
"""

import ast
import io
import pathlib
import tokenize

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "configs/default.py"
TARGET = ROOT / "docs/configuration.md"

HEAD = """# Configuration

Every setting, its default and what it means, written by `python docs/configuration.py`
from [`configs/default.py`](../configs/default.py). The files in `configs/` change some
of them; the command line any: `--config.batch_size=8`, `--config.optimizer.name=sgd`,
`--config.augment.crop='(480, 480)'`.
"""
TABLE = "| setting | default | |\n|---|---|---|\n"
TITLES = {
    "": "The run",
    "mesh": "mesh: the devices",
    "data": "data: what is trained on",
    "augment": "augment: what is done to training images",
    "model": "model: the network",
    "loss": "loss: what is made small",
    "optimizer": "optimizer: how",
}


def main() -> None:
    """Writes the file."""
    TARGET.write_text(render(SOURCE.read_text()))


def render(source: str) -> str:
    """Returns the reference of a config's source."""
    sections = {}
    for name, value, meaning in fields(source):
        section, _, _ = name.rpartition(".")
        sections.setdefault(section, []).append((name, value, meaning))
    parts = [HEAD]
    for section, rows in sections.items():
        parts.append(f"\n## {TITLES[section]}\n\n{TABLE}")
        parts += [f"| `{n}` | `{v}` | {_cell(m)} |\n" for n, v, m in rows]
    return "".join(parts)


def fields(source: str) -> list[tuple[str, str, str]]:
    """Returns the name, the default and the comment of every setting, in order."""
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "get_config"
    )
    found = []
    for node, after in zip(function.body, function.body[1:], strict=False):
        if not isinstance(node, ast.Assign) or "ConfigDict" in ast.unparse(node.value):
            continue
        name = ast.unparse(node.targets[0]).removeprefix("config.")
        lines = range(node.lineno, after.lineno)
        meaning = " ".join(comments[n] for n in lines if n in comments)
        found.append((name, ast.unparse(node.value), meaning))
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
