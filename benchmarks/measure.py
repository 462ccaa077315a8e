"""What the benchmarks share: competitors that take turns, the machine, the result file.

Each competitor works in a process of its own, so that neither its threads, nor its
memory, nor its compiler get in the way of the others, and only while the others wait.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
PACKAGES += ("opencv-python-headless", "torch")
_ROOT = pathlib.Path(__file__).parents[1]

# JAX else takes three quarters of a GPU for each process, the first being this one. The
# processes of the competitors inherit it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Side:
    """A competitor: a process that builds its work once and does it when told.

    ``build(*args)`` returns ``work``, which does one unit of work and returns when it
    is finished. What ``work`` returns, arrays or numbers, is what the sides are
    compared by.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], *args, **environment):
        """Starts the process, with further environment variables, and builds."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        self._process = context.Process(target=_serve, args=(theirs, build, args))
        self._process.start()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        self.build_seconds = self._ask("ready")

    def run(self) -> float:
        """Does one unit of work; returns its seconds."""
        return self._ask("run")

    def result(self) -> Any:
        """What the latest unit of work returned."""
        return self._ask("result")

    def peak_gib(self) -> float:
        """Highest memory so far: of the GPU, without one of the process."""
        return self._ask("peak")

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._pipe.send("end")
        self._process.join(10)
        self._process.kill()

    def _ask(self, what: str) -> Any:
        if what != "ready":
            self._pipe.send(what)
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise SystemExit("A competitor's process died; see above.") from None
        if kind == "error":
            raise SystemExit(f"A competitor failed: {value}")
        return value


@contextlib.contextmanager
def sides(**builds: tuple) -> Iterator[dict[str, Side]]:
    """Sides by name, from (build, *args) each; ends their processes afterwards."""
    started = {}
    try:
        for name, (build, *args) in builds.items():
            started[name] = Side(build, *args)
        yield started
    finally:
        for side in started.values():
            side.close()


def _serve(pipe, build, args) -> None:
    try:
        start = time.perf_counter()
        work = build(*args)
        _forget_peak()
        pipe.send(("ok", time.perf_counter() - start))
        result = None
        while (what := pipe.recv()) != "end":
            if what == "run":
                start = time.perf_counter()
                result = work()
                pipe.send(("ok", time.perf_counter() - start))
            elif what == "result":
                pipe.send(("ok", result))
            else:
                pipe.send(("ok", _peak_gib()))
    except EOFError:
        pass
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def _peak_gib() -> float:
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return sys.modules["torch"].cuda.max_memory_allocated() / 2**30
    if "jax" in sys.modules:
        stats = sys.modules["jax"].devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return stats["peak_bytes_in_use"] / 2**30
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**20


def _forget_peak() -> None:
    """What building took does not count (on Linux, and for the process's memory)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def take_turns(
    competitors: Mapping[str, Side], rounds: int, *, run_up: int = 1, steps: int = 1
) -> dict[str, dict[str, Any]]:
    """Times every side ``rounds`` times, one after the other, in changing order.

    Args:
        competitors: the sides by name.
        rounds: how often each of them is timed.
        run_up: units of work before each one that is timed. While the others worked,
            a side's memory went back to the system and the processor's caches were
            lost; what is wanted is the time of one step among many.
        steps: that a unit of work has, but for the first one, which has one.

    Returns:
        By name, seconds of a step, see ``summary``, and ``first``: those of the first
        one, which compiles.
    """
    first = {name: side.run() for name, side in competitors.items()}
    seconds = {name: [] for name in competitors}
    for i in range(rounds):
        order = list(competitors)
        for name in order[i % len(order) :] + order[: i % len(order)]:
            for _ in range(run_up):
                competitors[name].run()
            seconds[name].append(competitors[name].run() / steps)
    return {n: {"first": first[n]} | summary(s) for n, s in seconds.items()}


def seconds(function: Callable, *args) -> float:
    """Of one call in this process, finished; ``function`` returns JAX's arrays."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest, highest and all of some measurements."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "all": list(values),
    }


def shown(result: Mapping[str, Any], unit: str = "s", digits: int = 3) -> str:
    """A summary as ``1.234 s (1.200 to 1.300)``."""
    median, low, high = (
        f"{result[k]:.{digits}f}" for k in ("median", "lowest", "highest")
    )
    return f"{median} {unit} ({low} to {high})"


def parser(doc: str, *, timed: bool = True) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring, with the flags that all have.

    Args:
        doc: the docstring.
        timed: whether it has ``--rounds``.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if timed:
        made.add_argument("--rounds", type=int, default=5, help="measurements of each")
    made.add_argument("--json", default="", help="file for the result; empty: none")
    return made


def write(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the machine, versions, date, commit and command, as JSON."""
    if not path:
        return
    result = {"command": command()} | environment() | {"rows": list(rows)}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Wrote {path}.")


def command() -> str:
    """The command line of this program, without the folders of this machine."""
    module = f"benchmarks.{pathlib.Path(sys.argv[0]).stem}"
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument("--json")
    places.add_argument("--source")
    known, arguments = places.parse_known_args()
    source = ["--source=FOLDER"] if known.source else []
    return " ".join(["python", "-m", module, *source, *arguments])


def environment() -> dict[str, Any]:
    """Hardware, versions, date and commit."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "hardware": hardware(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    }


def hardware() -> str:
    """The processor, its cores and its memory, and the GPU if there is one."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = f"{_cpu()}, {os.cpu_count()} cores, {gib:.0f} GiB"
    gpus = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return f"{gpus.splitlines()[0]}; {text}" if gpus else text


def _cpu() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    known = {line.partition(":")[0].strip(): line.partition(":")[2] for line in lines}
    name = known.get("model name", platform.processor() or platform.machine())
    wide = [n for n in ("avx512f", "avx2") if n in known.get("flags", "").split()]
    return " with ".join([name.strip(), *wide[:1]])


def _commit() -> str:
    commit = _run("git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD")
    changed = _run("git", "-C", str(_ROOT), "status", "--porcelain", "fcn_jax")
    return f"{commit or 'unknown'}{' and changes' if changed else ''}"


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
