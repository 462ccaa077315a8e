"""Masks: python run_predict.py --workdir=DIR --input=IMAGE_OR_FOLDER --output=DIR."""

import sys

from absl import flags

from fcn_jax import cli
from fcn_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string("step", "best", "best, latest, or a step's number.")
_INPUT = flags.DEFINE_string("input", None, "An image, or a folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder that the results go to.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", 0, "Work on images at this longest side (pixels); 0: at their own."
)


def main() -> None:
    """Writes ``<stem>_mask.png`` and ``<stem>_overlay.png`` for every image."""
    from fcn_jax.evaluation import predict, trained

    for flag in (_WORKDIR, _INPUT, _OUTPUT):
        if flag.value is None:
            raise UserError(f"--{flag.name} is missing; see --help.")
    paths = predict.find_images(_INPUT.value)
    run = trained.load(_WORKDIR.value, _STEP.value)
    cli.enable_compilation_cache(run.config.compilation_cache)
    failures = list(
        predict.predict_files(run, paths, _OUTPUT.value, max_side=_MAX_SIDE.value)
    )
    print(f"Segmented {len(paths) - len(failures)} image(s) into {_OUTPUT.value}.")
    for failure in failures:
        print(f"Error: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
