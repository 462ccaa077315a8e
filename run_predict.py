"""Segments your images: NAME_mask.png, NAME_overlay.png and, of all, areas.csv.

  python run_predict.py --workdir=runs/fcn8s --input=PHOTOS --output=MASKS
  python run_predict.py --workdir=runs/fcn8s --input='PHOTOS/**/*.jpg' --output=MASKS
  python run_predict.py --workdir=runs/fcn8s --input=clip.mp4 --every=25 --output=MASKS
  python run_predict.py ... --scales=0.75,1,1.25 --flip --probabilities=npz  (the best)
  python run_predict.py ... --tile=1024                  (images too large for memory)
  python run_predict.py --config=configs/reference/voc_fcn8s.py
    --config.init_from=fcn8s-caffe --input=photo.jpg --output=MASKS     (no training)

A mask is a palette PNG of class ids; multilabel: a PNG of 0 and 255 for each class. In
areas.csv an apostrophe precedes what a spreadsheet would take for a formula. The same
command again does what is missing. Exit code 1: some files, named, cannot be read.
"""

from absl import flags
from ml_collections import config_flags

from fcn_jax import cli, processes
from fcn_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Use config.init_from instead of a run.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string("step", "best", "Of a run: best, latest, or its number.")
_INPUT = flags.DEFINE_string("input", None, "Image, video, folder, or 'pattern'.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.")
_THRESHOLDS, _MESH = cli.define_thresholds(), cli.define_mesh()
flags.declare_key_flag("thresholds"), flags.declare_key_flag("mesh")
_HOW = (
    flags.DEFINE_integer("batch_size", 0, "Images at once; 0: one a device."),
    flags.DEFINE_integer("every", 1, "Of a video: take each N-th frame."),
    flags.DEFINE_bool("flip", False, "Average with the mirrored image."),
    flags.DEFINE_integer("max_side", 0, "Work at this longest side; 0: any."),
    flags.DEFINE_bool("overwrite", False, "Do again what is there."),
    flags.DEFINE_enum("probabilities", "", ["", "npz", "png"], "Write them: float16 "
        "[h,w,C] in NAME_probabilities.npz; 16-bit PNGs, one a class, 65535 is 1."),
    flags.DEFINE_list("scales", ["1"], "Average the results at these scales."),
    flags.DEFINE_integer("tile", 0, "Work on larger images in overlapping tiles of so "
        "many pixels a side, with the same result; 0: never."),
)  # fmt: skip


def main() -> None:
    """Loads the network, finds the images, predicts."""
    from fcn_jax.evaluation import predict, trained
    from fcn_jax.training import inputs

    source = _WORKDIR if _CONFIG.value is None else _CONFIG
    for flag in (source, _INPUT, _OUTPUT):
        if flag.value is None:
            raise UserError(f"--{flag.name} is missing; see --help.")
    for name in ("workdir", "step", "thresholds") if source is _CONFIG else ():
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} and --config exclude each other; give one.")
    paths, mesh = predict.find_images(_INPUT.value), cli.make_mesh(_MESH.value)
    how = {flag.name: flag.value for flag in _HOW}
    how["scales"] = cli.numbers(flags.FLAGS["scales"])
    if source is _WORKDIR:
        thresholds = cli.numbers(_THRESHOLDS)
        run = trained.load(_WORKDIR.value, _STEP.value, mesh, thresholds)
        cli.enable_compilation_cache(run.config.compilation_cache)
    else:
        cli.enable_compilation_cache(_CONFIG.value.compilation_cache)
        weights, config = trained.read_weights(_CONFIG.value), _CONFIG.value
        classes = inputs.find_classes(config)
        run, report = trained.from_weights(config, weights, *classes, mesh)
        processes.say(report)
    if failures := predict.predict_files(run, paths, _OUTPUT.value, **how):
        raise UserError("\nError: ".join(failures))


if __name__ == "__main__":
    cli.run(main)
