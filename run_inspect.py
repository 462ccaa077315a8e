"""Is my data right? python run_inspect.py --input=FOLDER --output=FOLDER.

Prints what there is, what must be mended, and the command that trains on it; writes
inspect.json and contact_sheet.png, images with their masks laid over, to the output
folder. Exit code 0: training takes the folder as the command says; 1: mend it first.
"""

from absl import flags

from fcn_jax import cli
from fcn_jax.errors import UserError

_INPUT = flags.DEFINE_string(
    "input",
    None,
    "Folder (or .tar file in VOC layout) of images and masks: VOC layout with lists, "
    "two folders images and masks, or masks/CLASS/NAME.png for many classes a pixel.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder that the results go to; default: inspect/<name of input>."
)
_LABEL_MAP = flags.DEFINE_string(
    "label_map",
    "",
    "What the values of the masks mean, such as 0:0,255:1 or #ff0000:1,#000000:void, "
    "or a file of such pairs; default: recognised from the values, and proposed.",
)
_IMAGE_DIR = flags.DEFINE_string(
    "image_dir", "images", "Of two folders, that of the images; relative to --input."
)
_MASK_DIR = flags.DEFINE_string(
    "mask_dir", "masks", "Of two folders, that of the masks; relative to --input."
)
_MULTILABEL = flags.DEFINE_bool(
    "multilabel", None, "Whether each class has a folder of masks; default: recognised."
)
_INTENSITY_RANGE = flags.DEFINE_list(
    "intensity_range",
    [],
    "LOW,HIGH: the values that become black and white, such as 0,4095; default: "
    "proposed where images use little of their range.",
)
_NUM_SHOWN = flags.DEFINE_integer(
    "num_shown", 24, "Images on the contact sheet.", lower_bound=1
)


def main() -> None:
    """Prints the report and writes it with the contact sheet."""
    from fcn_jax.inspection import inspect, record, report, samples

    if _INPUT.value is None:
        raise UserError("--input is missing; give the folder of your images and masks.")
    found = inspect.inspect(
        _INPUT.value,
        _OUTPUT.value,
        image_dir=_IMAGE_DIR.value,
        mask_dir=_MASK_DIR.value,
        multilabel=_MULTILABEL.value,
        label_map=_LABEL_MAP.value,
        intensity_range=inspect.parse_range(_INTENSITY_RANGE.value),
    )
    print(f"\n{report.text(found)}\n", flush=True)
    written = record.save(found, samples.draw(found, _NUM_SHOWN.value))
    print(f"Written: {', '.join(map(str, written))}")
    if not found.ok:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main, alone=True)
