"""What the ``run_*.py`` scripts share: flags, errors and the compilation cache."""

import difflib
import pathlib
import re
import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging

from fcn_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs ``main``; a user's mistake is one line and exit 1."""
    try:
        app.run(lambda _: _without_traceback(main), flags_parser=_parse_flags)
    except UserError as error:
        _exit_with(error)


def enable_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in a folder, so that the next start is faster."""
    if folder:
        path = pathlib.Path(folder).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(path))


def nearest(name: str, names) -> str:
    """' Did you mean X?', or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def _without_traceback(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every move otherwise.
    try:
        main()
    except UserError as error:
        _exit_with(error)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def _exit_with(error: UserError) -> None:
    print(f"Error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; says in one sentence what is wrong with it."""
    for i, arg in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if match:
            _check_config_path(
                match[1] if match[1] is not None else argv[i + 1 : i + 2]
            )
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(str(error).strip('"').split("\n")[0]) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no flag; flags start with --.")
    return rest


def _check_config_path(value) -> None:
    path = value if isinstance(value, str) else "".join(value)
    file = pathlib.Path(path.split(":")[0])
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else pathlib.Path("configs")
        known = sorted(str(p) for p in folder.glob("*.py"))
        raise UserError(
            f"--config={path}: there is no such file.{nearest(str(file), known)}"
        )
