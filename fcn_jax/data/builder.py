"""The TFDS builder of all data sets: pairs of files in, checked records out.

`folder.scan`, `voc.scan` and `shapes.scan` list the pairs and make a
`SegmentationConfig` of them, which `prepared.prepare` builds.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python import array_record_module
from PIL import Image

from fcn_jax.data import files as files_lib
from fcn_jax.data import images, labels
from fcn_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Item:
    """An image and its mask.

    Attributes:
        name: The record's name.
        image: The image's file name.
        mask: The mask's file name.
    """

    name: str
    image: str
    mask: str


@dataclasses.dataclass(eq=False, kw_only=True)
class SegmentationConfig(tfds.core.BuilderConfig):
    """What a data set is built from; its name is that of the prepared set.

    Attributes:
        files: Has the items' files.
        splits: The items of each split.
        class_names: The classes, by id.
        palette: uint8 [256, 3]; None: the first mask's, or PASCAL VOC's.
    """

    files: files_lib.Files
    splits: Mapping[str, Sequence[Item]]
    class_names: tuple[str, ...]
    palette: np.ndarray | None = None


def make_config(
    source: str | pathlib.Path,
    files: files_lib.Files,
    splits: Mapping[str, Sequence[Item]],
    class_names: Sequence[str],
    palette: np.ndarray | None = None,
) -> SegmentationConfig:
    """Returns a config named after the source and all that the result depends on.

    The name has the source's own name, a hash of its path, and a hash of the splits,
    the class names and the size and time of every file. Other sources, and a source
    that changed, thus have another name and another prepared set.
    """
    path = pathlib.Path(source).expanduser().absolute()
    content = {
        "splits": {k: [dataclasses.astuple(i) for i in v] for k, v in splits.items()},
        "class_names": list(class_names),
        "palette": None if palette is None else palette.tolist(),
        "files": [
            files.stat(name)
            for items in splits.values()
            for item in items
            for name in (item.image, item.mask)
        ],
    }
    printable = str(path).encode("utf-8", "backslashreplace").decode()
    stem = re.sub(r"[^A-Za-z0-9]+", "_", path.name)[:40]
    name = f"{stem}-{_hash(str(path))}-{_hash(json.dumps(content))}"
    return SegmentationConfig(
        name=name,
        description=f"Built from {printable}.",
        files=files,
        splits=splits,
        class_names=tuple(class_names),
        palette=palette,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


class _Info(tfds.core.DatasetInfo):
    """Of a data set that Google does not host, which TFDS would look for."""

    def initialize_from_bucket(self) -> None:
        """Leaves out TFDS's look, after which an empty temporary folder remains."""


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder):
    """Semantic segmentation: RGB images and masks of class ids, 255 for void.

    Images are RGB JPEG or PNG, masks grey PNG. The metadata hold what `datasets` needs
    to open the set: "class_names", "palette" and the statistics of each of "splits".
    """

    name = "segmentation"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    url_infos = {}  # TFDS downloads nothing, so has no list of checksums to look for.

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        self.info.metadata["class_names"] = list(self.builder_config.class_names)
        self.info.metadata["splits"] = {}
        return {name: self._generate_examples(name) for name in self._items}

    @property
    def _items(self) -> Mapping[str, Sequence[Item]]:
        return self.builder_config.splits

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        """Yields the checked examples of a split and then stores its statistics."""
        config, metadata = self.builder_config, self.info.metadata
        counts = np.zeros(len(config.class_names), np.int64)
        image_counts, max_size = np.zeros_like(counts), np.zeros(2, np.int64)
        with tqdm.tqdm(self._items[split], f"Preparing {split}", unit=" images") as bar:
            for index, item in enumerate(bar):
                image = config.files.read(item.image)
                mask = config.files.read(item.mask)
                if "palette" not in metadata:
                    own = config.palette is None
                    palette = _palette(mask) if own else config.palette
                    metadata["palette"] = palette.tolist()
                example, ids = _check_pair(item, image, mask, len(counts))
                labelled = np.bincount(ids.ravel(), minlength=256)[: len(counts)]
                counts += labelled
                image_counts += np.where(labelled > 0, labelled.sum(), 0)
                max_size = np.maximum(max_size, ids.shape)
                yield index, example
        metadata["splits"][split] = {
            "pixel_counts": counts.tolist(),
            "image_pixel_counts": image_counts.tolist(),
            "max_size": max_size.tolist(),
        }

    def _generate_splits(self, dl_manager, download_config) -> list:
        # TFDS's own way is to hold a whole split in memory first, and from 1 GB on it
        # needs TensorFlow to put that on disk. Here record after record is written.
        del download_config
        features, infos = self.info.features, []
        for split, examples in self._split_generators(dl_manager).items():
            file = self._get_filename_template(split)
            path = file.sharded_filepath(shard_index=0, num_shards=1)
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            num_examples = num_bytes = 0
            for _, example in examples:
                record = features.serialize_example(example)
                with _os_errors():
                    writer.write(record)
                num_examples += 1
                num_bytes += len(record)
            with _os_errors():
                writer.close()
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[num_examples],
                    num_bytes=num_bytes,
                    filename_template=file,
                )
            )
        return infos


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Gives ArrayRecord's errors, as of a full disk, the type that others have."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _check_pair(
    item: Item, image_file: bytes, mask_file: bytes, num_classes: int
) -> tuple[dict, np.ndarray]:
    """Returns the example to store and its class ids, uint8 [h, w]."""
    image = images.read_image(image_file, item.image)
    ids = images.read_mask(mask_file, item.mask)
    if image.shape[:2] != ids.shape:
        raise UserError(
            f"The mask {item.mask} is {_size(ids)} pixels but its image {item.image} "
            f"is {_size(image)}; they must be equal. Make the mask anew, or resize it "
            "without interpolation."
        )
    bad = (ids >= num_classes) & (ids != labels.IGNORE)
    if bad.any():
        y, x = np.argwhere(bad)[0].tolist()
        raise UserError(
            f"The mask {item.mask} has the value {ids[y, x]} at column {x}, row {y}; "
            f"with {num_classes} classes the values must be 0 to {num_classes - 1}, "
            f"or {labels.IGNORE} for void. Correct the mask or the list of classes."
        )
    # A JPEG is stored as it is: to encode it again would cost quality or space.
    plain = images.is_plain_rgb_jpeg(image_file)
    example = {
        "image": io.BytesIO(image_file if plain else images.encode_png(image)),
        "mask": io.BytesIO(images.encode_png(ids)),
        "name": item.name,
    }
    return example, ids


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _palette(mask_file: bytes) -> np.ndarray:
    """Returns a mask's own colours, PASCAL VOC's where it has none."""
    palette = labels.voc_palette()
    with contextlib.suppress(OSError), Image.open(io.BytesIO(mask_file)) as mask:
        if mask.mode == "P":
            own = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette[: len(own)] = own
    return palette
