"""Which image belongs to which mask: like `data.folder`, but stops at no fault.

`data.folder` is what training uses, and raises at the first fault. Here every fault
becomes a finding, and what is sound is listed all the same.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable

from fcn_jax.data import files as files_lib
from fcn_jax.data import names as names_lib
from fcn_jax.errors import UserError
from fcn_jax.inspection import places
from fcn_jax.inspection.findings import Findings

LISTS = "ImageSets/Segmentation/"


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask, or masks.

    Attributes:
        name: The image's name without its ending.
        image: The image's file.
        masks: The mask's file under "", or that of each class under the class's name.
    """

    name: str
    image: str
    masks: dict[str, str]


@dataclasses.dataclass
class Listing:
    """What a folder holds.

    Attributes:
        files: Has the files.
        layout: "voc", "parallel", "multilabel", or "" if there is none.
        image_dir: The folder of the images.
        mask_dir: The folder of the masks.
        pairs: Images that have a mask, or for "multilabel" at least one.
        splits: The names of each list; None if there are no lists.
        num_images: Image files found.
        num_masks: Mask files found.
        classes: For "multilabel" the folders of masks.
    """

    files: files_lib.Files
    layout: str = ""
    image_dir: str = ""
    mask_dir: str = ""
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    splits: dict[str, list[str]] | None = None
    num_images: int = 0
    num_masks: int = 0
    classes: tuple[str, ...] = ()


def find(
    source: str,
    findings: Findings,
    *,
    image_dir: str = "images",
    mask_dir: str = "masks",
    multilabel: bool | None = None,
) -> Listing:
    """Lists the images and masks of a folder or .tar file.

    Args:
        source: The folder.
        findings: What is wrong goes there.
        image_dir: The images' folder, absolute or below the source.
        mask_dir: The masks' folder.
        multilabel: Whether the masks lie in a folder for each class; None: recognised
            by the folder of the masks having only folders.

    Raises:
        UserError: If the source does not exist or cannot be read at all.
    """
    found = files_lib.open_files(source)
    has_lists = any(name.startswith(LISTS) for name in found.names)
    listing = Listing(found)
    if not has_lists and not places.has_both(found, image_dir, mask_dir):
        guess = places.guess(found.names)
        if guess is None:
            findings.add("no_layout", *places.folders(found.names), count="")
            return listing
        image_dir, mask_dir = guess
    classes = places.class_folders(found, mask_dir)
    if multilabel is None:
        multilabel = bool(classes) and not places.direct(found, mask_dir)
        multilabel &= not any(n.startswith("SegmentationClass/") for n in found.names)
    if multilabel:
        listing.layout, listing.classes = "multilabel", classes
    elif has_lists:
        listing.layout, image_dir, mask_dir = "voc", "JPEGImages", "SegmentationClass"
    else:
        listing.layout = "parallel"
    listing.image_dir, listing.mask_dir = image_dir, mask_dir
    nested = listing.layout == "voc"
    images = places.in_folder(
        found, image_dir, names_lib.IMAGE_SUFFIXES, nested, findings
    )
    if multilabel:
        masks = collections.defaultdict(dict)
        for name in classes:
            where = str(pathlib.PurePosixPath(mask_dir, name))
            for stem, file in places.in_folder(
                found, where, places.ANY, False, findings
            ).items():
                masks[stem][name] = file
    else:
        several = places.in_folder(found, mask_dir, places.ANY, nested, findings)
        masks = {stem: {"": file} for stem, file in several.items()}
    listing.num_images = len(images)
    listing.num_masks = sum(map(len, masks.values()))
    if has_lists:
        listing.splits = _read_lists(found, images, findings)
    if multilabel:
        widows = sorted(masks.keys() - images.keys())
        files = [file for name in widows for file in masks[name].values()]
        if files:
            findings.add("mask_without_image", *files)
        wanted = set(images)
        if has_lists:
            wanted = {name for names in listing.splits.values() for name in names}
            lost = sorted(wanted - images.keys())
            if lost:
                findings.add("listed_without_files", *lost)
        listing.pairs = [
            Pair(name, file, masks[name])
            for name, file in images.items()
            if name in wanted
        ]
    elif has_lists:
        wanted = dict.fromkeys(n for names in listing.splits.values() for n in names)
        listing.pairs = _listed(wanted, images, masks, findings)
    else:
        _report_unmatched(images, masks, findings)
        both = sorted(images.keys() & masks.keys())
        listing.pairs = [Pair(n, images[n], masks[n]) for n in both]
    _report_masks(listing, findings)
    _report_names(listing, findings)
    return listing


def _read_lists(
    found: files_lib.Files, images: dict[str, str], findings: Findings
) -> dict[str, list[str]]:
    """The names of each list, without those that `data.folder.read_list` refuses."""
    splits = {}
    for where in sorted(n for n in found.names if n.startswith(LISTS)):
        split = where.removeprefix(LISTS).removesuffix(".txt")
        if not where.endswith(".txt"):
            continue
        if not names_lib.is_split(split):
            findings.add("bad_list", where)
            continue
        try:
            lines = found.read(where).decode("utf-8-sig").splitlines()
        except (UserError, UnicodeDecodeError):
            findings.add("bad_list", where)
            continue
        names = [_listed_name(line, split, images, findings) for line in lines]
        names = [name for name in names if name is not None]
        for name, count in collections.Counter(names).items():
            if count > 1:
                findings.add("listed_twice", f"{split}.txt: {name}")
        splits[split] = list(dict.fromkeys(names))
        if not names:
            findings.add("bad_list", where)
    return splits


def _listed_name(
    line: str, split: str, images: dict[str, str], findings: Findings
) -> str | None:
    words = line.split()
    if not words:
        return None
    # As `names.read_list`: a name may have spaces, or a number may follow it.
    name = line.strip() if line.strip() in images else words[0]
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        findings.add("leads_out", f"{split}.txt: {name}")
    elif name not in images and places.suffix(name) in places.ANY:
        findings.add("listed_with_ending", f"{split}.txt: {name}")
    else:
        return name
    return None


def _listed(
    wanted: Iterable[str],
    images: dict[str, str],
    masks: dict[str, dict[str, str]],
    findings: Findings,
) -> list[Pair]:
    pairs = []
    for name in wanted:
        if name in images and name in masks:
            pairs.append(Pair(name, images[name], masks[name]))
        elif name in images:
            findings.add("image_without_mask", name)
        elif name in masks:
            findings.add("mask_without_image", name)
        else:
            findings.add("listed_without_files", name)
    left = (images.keys() & masks.keys()) - set(wanted)
    if left:
        findings.add("not_listed", *sorted(left))
    return pairs


def _report_unmatched(
    images: dict[str, str], masks: dict[str, dict[str, str]], findings: Findings
) -> None:
    lonely = sorted(images.keys() - masks.keys())
    widows = sorted(masks.keys() - images.keys())
    if affix := _affix(lonely, widows):
        findings.add(
            "affix",
            *[file for name in widows for file in masks[name].values()],
            remedy=f'The masks have "{affix}" more in their names: take it out.',
        )
        return
    if lonely:
        findings.add("image_without_mask", *[images[name] for name in lonely])
    if widows:
        files = [file for name in widows for file in masks[name].values()]
        findings.add("mask_without_image", *files)


def _affix(images: list[str], masks: list[str]) -> str:
    """What all masks have before or behind their image's name; "" if nothing."""
    if not images or len(images) != len(masks):
        return ""
    first = [m for m in masks if m.startswith(images[0]) or m.endswith(images[0])]
    for mask in first:
        before, _, behind = mask.partition(images[0])
        if {before + name + behind for name in images} == set(masks):
            return before or behind
    return ""


def _report_masks(listing: Listing, findings: Findings) -> None:
    files = [file for pair in listing.pairs for file in pair.masks.values()]
    wrong = [
        file for file in files if places.suffix(file) not in names_lib.MASK_SUFFIXES
    ]
    if wrong:
        findings.add("jpeg_mask", *wrong)
    for pair in listing.pairs:
        for name in listing.classes:
            if name not in pair.masks:
                findings.add("class_without_mask", f"{pair.name}: {name}")


def _report_names(listing: Listing, findings: Findings) -> None:
    files = [f for p in listing.pairs for f in (p.image, *p.masks.values())]
    folded = collections.Counter(file.casefold() for file in files)
    same = [file for file in files if folded[file.casefold()] > 1]
    if same:
        findings.add("same_but_case", *same)
    if not listing.files.path.is_dir():
        return
    root = os.path.realpath(listing.files.path)

    def leads_out(name: str) -> bool:
        return not os.path.realpath(os.path.join(root, name)).startswith(root + os.sep)

    # A folder named by its absolute path is outside on purpose.
    inside = [file for file in files if not os.path.isabs(file)]
    folders = {os.path.dirname(file) for file in inside}
    outside = {folder for folder in folders if leads_out(folder)}
    linked = [
        file
        for file in inside
        if os.path.dirname(file) not in outside
        and os.path.islink(os.path.join(root, file))
        and leads_out(file)
    ]
    if outside or linked:
        findings.add("link_out", *sorted(outside), *linked)
