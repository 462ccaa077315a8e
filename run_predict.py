"""Masks: python run_predict.py --workdir=DIR --input=IMAGE_OR_FOLDER --output=DIR."""

from absl import flags
from ml_collections import config_flags

from fcn_jax import cli, processes
from fcn_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Use config.init_from instead of a run.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string(
    "step", "best", "Of a run: best, latest, or a step's number."
)
_INPUT = flags.DEFINE_string("input", None, "An image, or a folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder that the results go to.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", 0, "Work on images at this longest side (pixels); 0: at their own."
)
_MESH = cli.define_mesh()


def main() -> None:
    """Writes ``<stem>_mask.png`` and ``<stem>_overlay.png`` for every image."""
    from fcn_jax.evaluation import predict, trained
    from fcn_jax.training import inputs

    source = _WORKDIR if _CONFIG.value is None else _CONFIG
    for flag in (source, _INPUT, _OUTPUT):
        if flag.value is None:
            raise UserError(f"--{flag.name} is missing; see --help.")
    for name in ("workdir", "step") if source is _CONFIG else ():
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} and --config exclude each other; give one.")
    paths = predict.find_images(_INPUT.value)
    mesh = cli.make_mesh(_MESH.value)
    if source is _WORKDIR:
        run = trained.load(_WORKDIR.value, _STEP.value, mesh)
        cli.enable_compilation_cache(run.config.compilation_cache)
    else:
        cli.enable_compilation_cache(_CONFIG.value.compilation_cache)
        weights = trained.read_weights(_CONFIG.value)
        classes = inputs.find_classes(_CONFIG.value)
        run, report = trained.from_weights(_CONFIG.value, weights, *classes, mesh)
        processes.say(report)
    failures = list(
        predict.predict_files(run, paths, _OUTPUT.value, max_side=_MAX_SIDE.value)
    )
    done = len(paths) - len(failures)
    processes.say(f"Segmented {done} image(s) into {_OUTPUT.value}.")
    if failures:
        raise UserError("\nError: ".join(failures))


if __name__ == "__main__":
    cli.run(main)
