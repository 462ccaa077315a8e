"""What the ``run_*.py`` scripts share: flags, errors and the compilation cache."""

import difflib
import errno
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from fcn_jax.errors import UserError

# What a folder can be to blame for; any other OSError is a bug of ours.
_ENVIRONMENT = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs ``main``; a user's mistake is one line and exit 1."""
    try:
        app.run(lambda _: _without_traceback(main), flags_parser=_parse_flags)
    except UserError as error:
        _exit_with(error)


def default_workdir() -> str:
    """``runs/<name of the config>``, for the flag ``--config``."""
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    return f"runs/{pathlib.Path(name).stem}"


def enable_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in a folder, so that the next start is faster.

    JAX looks at the setting when it compiles for the first time, and never again.
    """
    if folder:
        path = pathlib.Path(folder).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(path))


def _without_traceback(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every move otherwise.
    try:
        main()
    except UserError as error:
        _exit_with(error)
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        _exit_with(
            f"{error.filename or 'A file'} cannot be read or written "
            f"({error.strerror}); choose another folder, or mend this one."
        )
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def _exit_with(error: UserError | str) -> None:
    print(f"Error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; says in one sentence what is wrong with it."""
    for i, arg in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", arg):
            value = match[1] if match[1] is not None else "".join(argv[i + 1 : i + 2])
            _check_config(value, argv)
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(str(error).split("\n")[0]) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no flag; flags start with --.")
    return rest


def _check_config(value: str, argv: list[str]) -> None:
    """Raises UserError if the config file, or a field to override, does not exist."""
    file = pathlib.Path(value)
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else pathlib.Path("configs")
        known = sorted(str(p) for p in folder.glob("*.py"))
        raise UserError(
            f"--config={value}: there is no such file.{_nearest(str(file), known)}"
        )
    known = set(_names(runpy.run_path(str(file))["get_config"]()))
    for arg in argv:
        match = re.match(r"--?config\.([^=]+)", arg)
        if match and match[1] not in known:
            raise UserError(
                f"--config.{match[1]}: {file} has no such field."
                f"{_nearest(match[1], known)} All are in configs/default.py."
            )


def _names(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?', or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""
