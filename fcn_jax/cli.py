"""What the ``run_*.py`` scripts share: flags, processes, errors, compilation cache."""

import difflib
import errno
import pathlib
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from fcn_jax import agreement, memory, processes, remote, sharding
from fcn_jax.errors import Preempted, UserError

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes, found from the cluster: Cloud TPU, GKE, Slurm, Open MPI.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Several processes by hand: HOST:PORT of process 0, ..."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "... how many there are, ..."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "... and the number of this one, from 0."
)
_CONNECT_TIMEOUT = flags.DEFINE_integer(
    "connect_timeout", 300, "Seconds that the processes have to connect."
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout", 100, "Seconds after which a silent process counts as dead."
)

_PROCESS_FLAGS = (
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
    "connect_timeout",
    "heartbeat_timeout",
)

# What a folder can be to blame for; any other OSError is a bug of ours.
_ENVIRONMENT = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
_PLACES = ("workdir", "input", "output")  # Flags that name a file or a folder.


def run(main: Callable[[], None], *, alone: bool = False) -> None:
    """Parses the flags, connects the processes and runs ``main``.

    A user's mistake is one line and exit code 1; 75 asks to be started again.

    Args:
        main: what the script does.
        alone: whether it is always one process; it then has no flags for several.
    """
    for name in _PROCESS_FLAGS if alone else ():
        delattr(flags.FLAGS, name)
    if alone:  # Training heeds it at its own time; here what was begun is removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # --help has the flags of the script itself, and those that are given to it here.
    for flag in flags.FLAGS.flags_by_module_dict()[__name__]:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    memory.keep_freed()
    try:
        app.run(lambda _: _without_traceback(main), flags_parser=_parse_flags)
    except UserError as error:
        _exit_with(error)


def default_workdir() -> str:
    """``runs/<name of the config>``, for the flag ``--config``."""
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    return f"runs/{pathlib.Path(name).stem}"


def define_mesh() -> flags.FlagHolder:
    """The flag ``--mesh`` of a script that does not train."""
    return flags.DEFINE_list(
        "mesh",
        ["-1", "1", "1"],
        "Devices that batches are split over (data), that parameters are split over, "
        "too (fsdp), and that the rows of each image are split over (spatial); -1: all "
        "that remain. For one image that is too large for a device: 1,1,-1.",
    )


def define_thresholds() -> flags.FlagHolder:
    """The flag ``--thresholds`` of a script that uses a trained network."""
    return flags.DEFINE_list(
        "thresholds",
        [],
        "Of a multilabel network: the probabilities from which a class is present, one "
        "for all classes or one for each, with commas; default: those of its config.",
    )


def numbers(flag: flags.FlagHolder) -> tuple[float, ...]:
    """The numbers of a list flag; raises UserError if one of them is none."""
    try:
        return tuple(float(part) for part in flag.value)
    except ValueError as error:
        raise UserError(
            f"--{flag.name}={','.join(flag.value)} must be numbers with commas between."
        ) from error


def make_mesh(sizes: list[str]) -> jax.sharding.Mesh:
    """The mesh that ``--mesh`` means.

    Raises:
        UserError: no three numbers, or see ``sharding.make_mesh``.
    """
    if not (len(sizes) == 3 and all(re.fullmatch(r"-?\d+", n) for n in sizes)):
        raise UserError(
            f"--mesh={','.join(sizes)} must be three numbers, DATA,FSDP,SPATIAL, such "
            "as -1,1,1."
        )
    return sharding.make_mesh(*map(int, sizes))


def enable_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in a folder, so that the next start is faster.

    JAX looks at the setting when it compiles for the first time, and never again.
    """
    if folder:
        if not remote.is_url(folder):
            folder = str(pathlib.Path(folder).expanduser())
        jax.config.update("jax_compilation_cache_dir", folder)


def _without_traceback(main: Callable[[], None]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every move otherwise.
    try:
        if "distributed" in flags.FLAGS:
            _connect()
        main()
    except UserError as error:
        _exit_with(error)
    except Preempted as notice:
        processes.say(str(notice))
        processes.leave(processes.EXIT_START_AGAIN)
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            _leave_with_traceback(error)
        place = error.filename or _value("output") or _value("workdir") or "A file"
        _exit_with(
            f"{place} cannot be read or written ({error.strerror}); choose another "
            "folder, or mend this one."
        )
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        processes.leave(130)
    except jax.errors.JaxRuntimeError as error:
        if processes.count() == 1:
            _leave_with_traceback(error)
        _exit_with(
            f"the connection to another process was lost ({str(error).splitlines()[0]}"
            "); start the same command again to go on from the last checkpoint.",
            processes.EXIT_START_AGAIN,
        )
    except Exception as error:
        _leave_with_traceback(error)


def _connect() -> None:
    """Starts the processes; they must agree on the code and on the command line."""
    processes.start(
        distributed=_DISTRIBUTED.value,
        coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        connect_timeout=_CONNECT_TIMEOUT.value,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
    )
    agreement.require_same_code()
    values = {}
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        if isinstance(flag.value, ml_collections.ConfigDict):
            values |= dict(_fields(flag.value, "--config."))
        elif flag.name not in _PROCESS_FLAGS:
            values[f"--{flag.name}"] = flag.value
    agreement.require_same(values, "start all with the same flags and config")


def _exit_with(error: UserError | str, status: int = 1) -> None:
    print(f"Error: {error}", file=sys.stderr, flush=True)
    processes.leave(status)


def _leave_with_traceback(error: Exception) -> None:
    """For bugs: as Python ends, but without waiting for other processes."""
    if processes.count() == 1:
        raise error
    traceback.print_exception(error)
    processes.leave(1)


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
    for name in _PLACES:
        _check_place(name, _value(name))
    return rest


def _value(name: str) -> Any:
    """Of a flag, None if the script has none of this name."""
    return flags.FLAGS[name].value if name in flags.FLAGS else None


def _check_place(name: str, value: str | None) -> None:
    """Raises UserError for a path that cannot be one."""
    if value == "":
        raise UserError(f"--{name} is empty; give a file or a folder.")
    if value is None or not remote.is_url(value):
        return
    alone = "distributed" not in flags.FLAGS
    if not value.startswith("gs://") or (alone and name != "workdir"):
        raise UserError(
            f"--{name}={value} is a URL; give a local path"
            f"{'' if alone and name != 'workdir' else ', or one of gs://'}."
        )


def _check_config(value: str, argv: list[str]) -> None:
    """Raises UserError if the config file, or a field to override, does not exist."""
    file = pathlib.Path(value)
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else pathlib.Path("configs")
        known = sorted(str(p) for p in folder.glob("*.py"))
        raise UserError(
            f"--config={value}: there is no such file.{_nearest(str(file), known)}"
        )
    try:
        known = set(dict(_fields(runpy.run_path(str(file))["get_config"]())))
    except Exception as error:  # Whatever that file does.
        raise UserError(
            f"--config={value} is no config ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); give a Python file "
            "with get_config(), such as those in configs/."
        ) from error
    for arg in argv:
        match = re.match(r"--?config\.([^=]+)", arg)
        if match and match[1] not in known:
            raise UserError(
                f"--config.{match[1]}: {file} has no such field."
                f"{_nearest(match[1], known)} All are in configs/default.py."
            )


def _fields(
    config: ml_collections.ConfigDict, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """All fields with their dotted names."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?', or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""
