"""Every row of docs/performance.md, by one command.

    python -m benchmarks.suite                     # into docs/performance/cpu or gpu
    python -m benchmarks.suite --out=FOLDER --only step evaluation
    python -m benchmarks.suite --camvid=FOLDER     # and how accurate, which takes hours

Runs the benchmarks one after the other, each of which checks that its sides agree, and
writes a JSON file for each; python docs/performance.py puts those into the tables.
Needs PyTorch for the device at hand; no network, and no data but for CamVid.
"""

import argparse
import pathlib
import subprocess
import sys

import jax

BENCHMARKS = ("step", "evaluation", "input_pipeline", "waiting", "startup")
BENCHMARKS += ("growth", "convolution")
ON_CPUS = ("convolution",)  # Elsewhere there is one form alone.


def main() -> None:
    """Runs them; the exit code is that of the worst."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
    parser.add_argument("--out", default=f"docs/performance/{kind}")
    here = [name for name in BENCHMARKS if kind == "cpu" or name not in ON_CPUS]
    parser.add_argument("--only", nargs="+", choices=here, default=here)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--camvid", default="", help="CamVid in VOC layout; empty: not")
    args = parser.parse_args()
    flags = {name: [f"--rounds={args.rounds}"] for name in args.only}
    if args.camvid:
        flags["camvid"] = [f"--source={args.camvid}"]
    worst = 0
    for name, own in flags.items():
        print(f"\n== {name}", flush=True)
        json = pathlib.Path(args.out) / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", f"--json={json}", *own]
        worst = max(worst, abs(subprocess.run(command).returncode))
    sys.exit(worst)


if __name__ == "__main__":
    main()
