"""Several processes on this machine, started as a user would start them."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

from example_runs import ROOT


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


class Process:
    """A started process; its output is read all the time, so that it never blocks."""

    def __init__(self, command, devices, cwd):
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                # Threads of each process: on them it depends in which order XLA adds.
                "NPROC": "4",
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": str(ROOT),
            },
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line)

    @property
    def output(self):
        return "".join(self.lines)

    def await_line(self, text, timeout=150):
        end = time.monotonic() + timeout
        while text not in self.output:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.01)

    def kill(self, number):
        self._process.send_signal(number)

    def wait(self, timeout=150):
        code = self._process.wait(timeout)
        self._reader.join()
        self._process.stdout.close()
        return code


@contextlib.contextmanager
def pod(script, *args, processes=2, devices=2, each=None, cwds=None, by_hand=True):
    """Starts them; ``each`` has further arguments of every one, ``cwds`` folders."""
    port, started = free_port(), []
    try:
        for i in range(processes):
            command = [sys.executable, str(ROOT / script), *args]
            if by_hand:
                command += [
                    f"--coordinator=localhost:{port}",
                    f"--num_processes={processes}",
                    f"--process_id={i}",
                ]
            command += each[i] if each else []
            started.append(Process(command, devices, cwds[i] if cwds else ROOT))
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill(9)
            process.wait()


def run_pod(script, *args, **kwargs):
    """Exit codes and outputs of processes that end by themselves."""
    with pod(script, *args, **kwargs) as started:
        return [(p.wait(), p.output) for p in started]
