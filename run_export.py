"""Writes a trained network for use without this project.

python run_export.py --workdir=runs/fcn8s --output=exported

The folder has the network as StableHLO (model.stablehlo, for images of any size on
CPU, NVIDIA GPU and TPU), its weights (weights.npz), what they mean (model.json), and a
short script that segments a picture with them and needs only JAX, flatbuffers,
NumPy and Pillow: python exported/predict.py IMAGE MASK.png
"""

from absl import flags

from fcn_jax import cli, processes
from fcn_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string("step", "best", "Checkpoint: best, latest, or a step.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write, which must be new.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace the folder, if it is an exported network."
)
_THRESHOLDS = cli.define_thresholds()


def main() -> None:
    """Writes the folder and says what is in it."""
    from fcn_jax.evaluation import trained
    from fcn_jax.export import stablehlo

    for flag in (_WORKDIR, _OUTPUT):
        if flag.value is None:
            raise UserError(f"--{flag.name} is missing; see --help.")
    run = trained.load(_WORKDIR.value, _STEP.value, thresholds=cli.numbers(_THRESHOLDS))
    path = stablehlo.write(run, _OUTPUT.value, overwrite=_OVERWRITE.value)
    for file in sorted(path.iterdir()):
        processes.say(f"{file.stat().st_size / 1e6:10.1f} MB  {file}")
    processes.say(f"Try it: python {path / 'predict.py'} IMAGE MASK.png")


if __name__ == "__main__":
    cli.run(main, alone=True)
