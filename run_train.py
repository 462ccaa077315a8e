"""Trains a network, or goes on with a run that was ended.

  python run_train.py --config=configs/quickstart.py
  python run_train.py --config=configs/small.py --config.data.source=FOLDER
  python run_train.py --config=configs/fcn8s.py --workdir=runs/a --config.batch_size=8

Every setting of a config can be changed with --config.NAME=VALUE; all are in
docs/configuration.md. The same command again goes on from the latest checkpoint.
"""

from absl import flags
from ml_collections import config_flags

from fcn_jax import cli
from fcn_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The run's settings: a file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<name of the config>."
)
_STEP = flags.DEFINE_string(
    "step", "latest", "Checkpoint to go on from: latest, or a step's number."
)


def main() -> None:
    """Trains, or resumes where the workdir's latest checkpoint stands."""
    from fcn_jax.training import loop  # After the flags: importing jax takes seconds.

    if _CONFIG.value is None:
        raise UserError("--config is missing; try --config=configs/quickstart.py.")
    cli.enable_compilation_cache(_CONFIG.value.compilation_cache)
    workdir = _WORKDIR.value or cli.default_workdir()
    loop.train_and_evaluate(_CONFIG.value, workdir, _STEP.value)


if __name__ == "__main__":
    cli.run(main)
