"""The TFDS builder of all data sets: pairs of files in, checked records out.

`folder.scan`, `voc.scan` and `shapes.scan` list the pairs and make a
`SegmentationConfig` of them, which `prepared.prepare` builds.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from array_record.python import array_record_module

from fcn_jax.data import examples
from fcn_jax.data import files as files_lib


@dataclasses.dataclass(frozen=True)
class Item:
    """An image and its mask.

    Attributes:
        name: The record's name.
        image: The image's file name.
        masks: The mask's file name; of a multilabel set one for each class, "" where
            there is none.
    """

    name: str
    image: str
    masks: tuple[str, ...]


@dataclasses.dataclass(eq=False, kw_only=True)
class SegmentationConfig(tfds.core.BuilderConfig):
    """What a data set is built from; its name is that of the prepared set.

    Attributes:
        files: Has the items' files.
        splits: The items of each split.
        class_names: The classes, by id; empty: as many as the masks have.
        palette: uint8 [256, 3]; None: the first mask's, or PASCAL VOC's.
        reading: How the files become arrays.
    """

    files: files_lib.Files
    splits: Mapping[str, Sequence[Item]]
    class_names: tuple[str, ...]
    palette: np.ndarray | None
    reading: examples.Reading


def make_config(
    source: str | pathlib.Path,
    files: files_lib.Files,
    splits: Mapping[str, Sequence[Item]],
    class_names: Sequence[str],
    *,
    palette: np.ndarray | None = None,
    reading: examples.Reading | None = None,
) -> SegmentationConfig:
    """Returns a config named after the source and all that the result depends on.

    The name has the source's own name, a hash of its path, and a hash of the splits,
    the class names and the size and time of every file. Other sources, and a source
    that changed, thus have another name and another prepared set.
    """
    path = pathlib.Path(source).expanduser().absolute()
    reading = reading or examples.Reading()
    content = {
        "reading": str(reading),
        "splits": {k: [dataclasses.astuple(i) for i in v] for k, v in splits.items()},
        "class_names": list(class_names),
        "palette": None if palette is None else palette.tolist(),
        "files": [
            files.stat(name)
            for items in splits.values()
            for item in items
            for name in (item.image, *filter(None, item.masks))
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
        reading=reading,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


class _Info(tfds.core.DatasetInfo):
    """Of a data set that Google does not host, which TFDS would look for."""

    def initialize_from_bucket(self) -> None:
        """Leaves out TFDS's look, after which an empty temporary folder remains."""


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder):
    """Semantic segmentation: RGB images and masks of class ids, 255 for void.

    Images are RGB JPEG or PNG, masks grey PNG; the masks of a multilabel set, one a
    class of 0, 1 and 255, lie below each other in one. The metadata hold what
    `datasets` needs to open the set: "class_names", "palette", "multilabel", the
    statistics of each of "splits", and "shared": the images that splits share.
    """

    name = "segmentation"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {
        "1.1.0": "Statistics of the images, images that splits share, many labels.",
        "1.0.0": "First release; such sets are no longer found, and prepared anew.",
    }
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
        return {name: self._generate_examples(name) for name in self._items}

    @property
    def _items(self) -> Mapping[str, Sequence[Item]]:
        return self.builder_config.splits

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        """Yields the checked examples of a split and counts what they hold."""
        config = self.builder_config
        statistics = self._statistics[split] = examples.Statistics()
        with tqdm.tqdm(self._items[split], f"Preparing {split}", unit=" images") as bar:
            for index, item in enumerate(bar):
                image_file = config.files.read(item.image)
                mask_files = [config.files.read(n) if n else None for n in item.masks]
                image, ids = config.reading.read(
                    item.image, image_file, item.masks, mask_files, config.class_names
                )
                if self._palette is None:
                    self._palette = examples.palette_of(mask_files[0], config.reading)
                statistics.add(item.name, image_file, image, ids)
                yield index, config.reading.example(item.name, image_file, image, ids)

    def _finish(self) -> None:
        """Stores what was counted, and refuses a set that is not what it seems."""
        config, found = self.builder_config, self._statistics
        num_classes = len(config.class_names)
        if not num_classes:
            num_classes = examples.count_classes(found.values(), config.files.path)
        names = config.class_names or [f"class {i}" for i in range(num_classes)]
        if not config.reading.multilabel and config.reading.label_map is None:
            examples.require_classes(found.values(), config.files.path)
        self.info.metadata.update(
            class_names=list(names),
            palette=self._palette.tolist(),
            multilabel=config.reading.multilabel,
            splits={name: s.as_json(num_classes) for name, s in found.items()},
            shared=examples.shared_images(found),
        )

    def _generate_splits(self, dl_manager, download_config) -> list:
        # TFDS's own way is to hold a whole split in memory first, and from 1 GB on it
        # needs TensorFlow to put that on disk. Here record after record is written.
        del download_config
        features, infos = self.info.features, []
        self._statistics, self._palette = {}, self.builder_config.palette
        for split, generated in self._split_generators(dl_manager).items():
            file = self._get_filename_template(split)
            path = file.sharded_filepath(shard_index=0, num_shards=1)
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            num_examples = num_bytes = 0
            for _, example in generated:
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
        self._finish()
        return infos


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Gives ArrayRecord's errors, as of a full disk, the type that others have."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error
