"""Every row of docs/performance.md, by one command.

    python -m benchmarks.suite                     # into docs/performance/cpu or gpu
    python -m benchmarks.suite --out=FOLDER --only step evaluation

Runs the benchmarks one after the other, each of which checks that its sides agree, and
writes a JSON file for each; python docs/performance.py puts those into the tables.
Needs PyTorch for the device at hand; no data, no network.
"""

import argparse
import pathlib
import subprocess
import sys

import jax

BENCHMARKS = ("step", "evaluation", "input_pipeline", "startup", "growth")
BENCHMARKS += ("convolution",)


def main() -> None:
    """Runs them; the exit code is that of the worst."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
    parser.add_argument("--out", default=f"docs/performance/{kind}")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    args = parser.parse_args()
    worst = 0
    for name in args.only:
        print(f"\n== {name}", flush=True)
        json = pathlib.Path(args.out) / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", f"--json={json}"]
        command.append(f"--rounds={args.rounds}")
        worst = max(worst, abs(subprocess.run(command).returncode))
    sys.exit(worst)


if __name__ == "__main__":
    main()
