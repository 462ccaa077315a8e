"""All that can be said of a folder: how much it matters, and what to do."""

import dataclasses
import enum
from collections.abc import Mapping


class Level(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # Training refuses the data, or would learn nonsense.
    WARNING = "warning"  # Training takes the data, but the result may suffer.
    NOTE = "note"  # Good to know.


@dataclasses.dataclass(frozen=True)
class Kind:
    """A sort of finding.

    Attributes:
        level: How much it matters.
        title: What was found, after the number of cases.
        remedy: What it means and what to do.
    """

    level: Level
    title: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    # Layout.
    "no_layout": Kind(
        Level.ERROR,
        "the folder has neither lists ImageSets/Segmentation/*.txt nor two folders of "
        "images and masks with the same names",
        "Put the images into images/ and the masks, under the same names, into masks/, "
        "or name the folders with --image_dir and --mask_dir.",
    ),
    "no_lists": Kind(
        Level.ERROR,
        "there is no list to train or to validate with",
        "Write ImageSets/Segmentation/train.txt and val.txt: one name a line, without "
        "its ending.",
    ),
    "bad_list": Kind(
        Level.ERROR,
        "list(s) that cannot be read or name no image",
        "Save as UTF-8 text with one image name a line, without its ending; name the "
        'file with letters, digits and "_".',
    ),
    "listed_twice": Kind(
        Level.ERROR, "name(s) twice in a list", "Remove one of the two lines."
    ),
    "leads_out": Kind(
        Level.ERROR,
        "name(s) in a list, leading out of the folder",
        "List names of images inside it.",
    ),
    "listed_with_ending": Kind(
        Level.ERROR,
        "name(s) listed with the ending of the file",
        "Take .jpg or .png from the lines of the list.",
    ),
    "same_stem": Kind(
        Level.ERROR,
        "file(s) that differ from another only by their ending",
        "Rename or remove one of the two.",
    ),
    "image_without_mask": Kind(
        Level.ERROR,
        "image(s) without a mask",
        "Add the masks, under the name of the image, or remove the images.",
    ),
    "mask_without_image": Kind(
        Level.ERROR,
        "mask(s) without an image",
        "Add the images, under the name of the mask, or remove the masks.",
    ),
    "affix": Kind(
        Level.ERROR,
        "mask(s) named otherwise than the image",
        "Rename them to the name of the image (only the ending may differ).",
    ),
    "listed_without_files": Kind(
        Level.ERROR,
        "listed name(s) with neither image nor mask",
        "Add the files to JPEGImages and SegmentationClass, or take the names from the "
        "list.",
    ),
    "class_without_mask": Kind(
        Level.WARNING,
        "image(s) without the mask file of a class",
        "The command below takes the class as absent there; set "
        "--config.data.missing_masks=void if nobody looked for it, or add the masks.",
    ),
    "too_few": Kind(
        Level.ERROR,
        "usable pair(s) of image and mask; at least 2 are needed",
        "Add images with masks: one trains, one validates.",
    ),
    "jpeg_mask": Kind(
        Level.ERROR,
        "mask(s) saved as a type that changes values (JPEG, WebP)",
        "Export them anew as PNG; a converted JPEG keeps its smeared values.",
    ),
    "other_files": Kind(
        Level.NOTE,
        "file(s) of other types, left out",
        "",
    ),
    "not_listed": Kind(Level.NOTE, "image(s) with a mask, in no list", ""),
    # Files.
    "unreadable": Kind(
        Level.ERROR,
        "file(s) damaged or of no known format",
        "Copy or export them again, or remove image and mask.",
    ),
    "bomb": Kind(
        Level.ERROR,
        "file(s) whose header claims more pixels than are read",
        "Cut them into tiles; if they should be small, they are damaged.",
    ),
    "turned": Kind(
        Level.ERROR,
        "file(s) stored turned (Exif orientation)",
        "Save them upright, e.g. `mogrify -auto-orient`; look whether the mask fits.",
    ),
    "size_mismatch": Kind(
        Level.ERROR,
        "mask(s) of another size than the image",
        "Export them again at the image's size; if you resize, then with nearest "
        "neighbour.",
    ),
    "beyond_range": Kind(
        Level.ERROR,
        "image(s) with values that cannot be read without a range",
        "Use the --config.data.intensity_range of the command below.",
    ),
    "narrow_range": Kind(
        Level.WARNING,
        "image(s) of over 8 bits that use little of their range",
        "The command below states a range, without which they would be nearly black.",
    ),
    "link_out": Kind(
        Level.WARNING,
        "symbolic link(s) to files outside of the folder",
        "They are read; a copy of the folder, or a tar of it, would lack them.",
    ),
    "bad_name": Kind(
        Level.ERROR,
        "file name(s) with control characters, or not in UTF-8",
        "Rename the files.",
    ),
    "transparent": Kind(
        Level.ERROR,
        "mask(s) with transparent pixels, whose class nothing tells",
        "Save them without transparency.",
    ),
    "mixed_binary": Kind(
        Level.WARNING,
        "masks mark the object with 255, others with 1",
        "The proposed map takes both for the object; look whether that is so.",
    ),
    "same_but_case": Kind(
        Level.WARNING,
        "file name(s) that differ from another only in upper and lower case",
        "On macOS and Windows one would replace the other; rename them.",
    ),
    # Content.
    "duplicate_across": Kind(
        Level.WARNING,
        "image(s) with the same pixels in more than one split",
        "Scores on images trained on are too good; keep copies in one split.",
    ),
    "overlap": Kind(
        Level.WARNING,
        "name(s) both in the list that trains and in one that is scored",
        "Scores on images trained on are too good; list each name once.",
    ),
    "duplicate_within": Kind(
        Level.NOTE, "image(s) with the same pixels as another of the split", ""
    ),
    "unknown_value": Kind(
        Level.ERROR,
        "mask(s) with values that are no class",
        "Add the values to --label_map, correct the masks, or add the classes to "
        "classes.txt.",
    ),
    "encoding": Kind(
        Level.ERROR,
        "the values of the masks fit no encoding that can be proposed",
        "State what they mean with --label_map.",
    ),
    "antialiased": Kind(
        Level.ERROR,
        "mask(s) with too many different values: they look antialiased, resized with "
        "interpolation, or JPEG-compressed",
        "Export them anew, without smoothing, as PNG; a label map cannot repair them.",
    ),
    "mixed_masks": Kind(
        Level.ERROR,
        "mask(s) of another kind than most (grey or colours)",
        "Save all masks alike.",
    ),
    "palettes": Kind(
        Level.WARNING,
        "mask(s) whose palette gives an id another colour than the others do",
        "The ids count, not the colours: look whether the ids mean the same in all.",
    ),
    "classes": Kind(
        Level.ERROR, "fault(s) in the list of classes", "Correct classes.txt."
    ),
    "no_labels": Kind(
        Level.ERROR,
        "split(s) without a single labelled pixel",
        "Label some of its images, or choose another split.",
    ),
    "never_trained": Kind(
        Level.WARNING,
        "class(es) in no training image, so never learnt",
        "Add images with them, choose other splits, or leave them out of the classes.",
    ),
    "never_scored": Kind(
        Level.WARNING,
        "class(es) in no validation image, so without a score",
        "Move images with them to the validation split.",
    ),
    "rare": Kind(
        Level.NOTE,
        "rare class(es)",
        "If they matter, add --config.loss.dice=1 or "
        "--config.loss.class_weights=root_median_frequency.",
    ),
    "void": Kind(
        Level.WARNING,
        "of the pixels are void: neither trained on nor scored",
        "Look whether 255 is meant to be a class.",
    ),
    "refused": Kind(Level.ERROR, "training would refuse the folder", ""),
}
