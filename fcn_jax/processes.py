"""The processes of one run: start, preemption and end.

All of it is JAX's own coordination service; with one process it comes to nothing. A
process that dies is noticed by that service, which then ends the others: a run goes on
when all are started again.
"""

import contextlib
import hashlib
import os
import pathlib
import signal
import sys
import threading
import types

import jax
from jax._src import distributed  # For its key-value store: there is no public door.
from jax.experimental import multihost_utils

from fcn_jax.errors import UserError

# sysexits.h's EX_TEMPFAIL: tells a scheduler to start the same command again.
EXIT_START_AGAIN = 75


def start(
    *,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    connect_timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """Connects the processes of a run; must come before anything else of JAX.

    Args:
        distributed: whether there are several, as the cluster tells: Cloud TPU, GKE,
            Slurm, Open MPI.
        coordinator: HOST:PORT of process 0, on which it listens. If this, the number
            of processes and this one's are given, no cluster is looked for.
        num_processes: how many there are.
        process_id: this one's number, from 0.
        connect_timeout: seconds that all of them have to connect.
        heartbeat_timeout: seconds after which a process that is silent counts as dead.

    Raises:
        UserError: arguments that make no sense, or no cluster.
    """
    by_hand = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [f"--{name}" for name, value in by_hand.items() if value is None]
    if len(missing) == 3 and not distributed:
        return
    if len(missing) == 3:
        by_hand, who = {}, "A process"
    elif missing:
        given = [f"--{name}" for name, value in by_hand.items() if value is not None]
        raise UserError(
            f"{' and '.join(given)} without {' and '.join(missing)}: give all three, "
            "or --distributed alone where JAX knows the cluster."
        )
    else:
        _check_by_hand(coordinator, num_processes, process_id)
        by_hand["cluster_detection_method"] = "deactivate"
        by_hand["coordinator_address"] = by_hand.pop("coordinator")
        who = f"Process {process_id} of {num_processes}"
    for name, value in (
        ("connect_timeout", connect_timeout),
        ("heartbeat_timeout", heartbeat_timeout),
    ):
        if value < 1:
            raise UserError(f"--{name}={value} must be at least 1 second.")

    def give_up() -> None:
        print(
            f"Error: {who} waited {connect_timeout} s for all processes to connect "
            f"through {coordinator or 'the coordinator of the cluster'}; see that "
            "it can be reached from here and that all are started, with the same "
            "flags, or raise --connect_timeout.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    # JAX's own end of the wait is a stack trace of C++.
    alarm = threading.Timer(connect_timeout, give_up)
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            **by_hand,
            initialization_timeout=connect_timeout + 60,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed: JAX found no cluster here ({str(error).rstrip('.')}); "
            "give --coordinator, --num_processes and --process_id instead."
        ) from error
    alarm.cancel()
    address = state().coordinator_address
    print(
        f"Process {jax.process_index()} of {jax.process_count()}: "
        f"{jax.local_device_count()} {jax.devices()[0].device_kind} device(s) of "
        f"{jax.device_count()}, coordinator {address}, "
        f"jax {jax.__version__}, code {code_version()}.",
        flush=True,
    )


def _check_by_hand(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator={coordinator} must be HOST:PORT, such as 10.0.0.1:9876."
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id} with --num_processes={num_processes}: it must "
            "be 0 or more and less than their number."
        )


def state() -> distributed.State:
    """JAX's: number of processes, this one's number, and the client, None if alone."""
    return distributed.global_state


def count() -> int:
    """The number of processes of the run."""
    return state().num_processes


def is_main() -> bool:
    """Whether this process is the one that writes logs and files."""
    return state().process_id == 0


def share() -> tuple[int, None, int]:
    """Start, stop and step of this process's share of things that are counted."""
    return state().process_id, None, state().num_processes


def say(text: str) -> None:
    """Prints, in the main process alone."""
    if is_main():
        print(text, flush=True)


def code_version() -> str:
    """A hash of the package's source."""
    folder = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


class Preemption:
    """Tells, in its context, when the run is to end: at the same step in all processes.

    Several processes ask JAX's service, which any SIGTERM and the notice of a platform
    reach; one process alone listens to SIGTERM itself.
    """

    def __init__(self):
        self._told = False

    def __enter__(self) -> "Preemption":
        if not state().client and threading.current_thread() is _MAIN_THREAD:
            self._before = signal.signal(signal.SIGTERM, self._listen)
        return self

    def __exit__(self, *error) -> None:
        if hasattr(self, "_before"):
            signal.signal(signal.SIGTERM, self._before)

    def _listen(self, number: int, frame: types.FrameType | None) -> None:
        del number, frame
        self._told = True

    def reached(self, step: int) -> bool:
        """Whether to end after this step; all processes must ask at every step."""
        if state().client:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told


_MAIN_THREAD = threading.main_thread()


def leave(status: int) -> None:
    """Ends this process, for an error or a preemption, without waiting for the others.

    Those that end alike are let go together. Others, which this one leaves in the
    middle of a step, are ended by JAX's service when they miss its heartbeat.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not state().client:
        sys.exit(status)
    with contextlib.suppress(Exception):
        state().client.wait_at_barrier("fcn_jax/leave", 5_000)
        jax.distributed.shutdown()
    os._exit(status)
