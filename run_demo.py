"""Serves a page on which one drops a picture and sees the classes that are found in it.

  python run_demo.py --workdir=runs/fcn8s

The page is for a browser on this machine, and works offline. It shows the classes'
colours over the picture, with a slider, their areas, and has the mask to download.
Needs Gradio: pip install -e '.[demo]'.
"""

from absl import flags

from fcn_jax import cli
from fcn_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string("step", "best", "Checkpoint: best, latest, or a step.")
_THRESHOLDS = cli.define_thresholds()
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in, all."
)
_PORT = flags.DEFINE_integer(
    "port", 0, "Port to listen on; 0: a free one.", lower_bound=0, upper_bound=65535
)
_MAX_UPLOAD = flags.DEFINE_integer(
    "max_upload_mb", 20, "Larger files are refused, in MB.", lower_bound=1
)
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", 2048, "Larger pictures are shrunk to this longest side.", lower_bound=1
)


def main() -> None:
    """Loads the network and serves the page."""
    from fcn_jax.demo import page
    from fcn_jax.demo.segmenter import Segmenter
    from fcn_jax.evaluation import trained

    if _WORKDIR.value is None:
        raise UserError("--workdir is missing; give the folder of a training run.")
    run = trained.load(_WORKDIR.value, _STEP.value, thresholds=cli.numbers(_THRESHOLDS))
    cli.enable_compilation_cache(run.config.compilation_cache)
    segmenter = Segmenter(run, max_side=_MAX_SIDE.value)
    about = f"FCN-{run.model.stride}s of {_WORKDIR.value}, step {run.name}."
    page.launch(
        page.build(segmenter, about),
        host=_HOST.value,
        port=_PORT.value,
        max_upload_mb=_MAX_UPLOAD.value,
    )


if __name__ == "__main__":
    cli.run(main, alone=True)
