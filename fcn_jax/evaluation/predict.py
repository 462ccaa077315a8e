"""From files to masks: reading, the network and writing go on at the same time."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent import futures

import tqdm
from etils import epath

from fcn_jax import agreement, processes, remote
from fcn_jax.errors import UserError
from fcn_jax.evaluation import sources, trained
from fcn_jax.evaluation.outputs import AREAS, PROBABILITIES, Areas, Outputs
from fcn_jax.evaluation.predictor import Predictor
from fcn_jax.evaluation.views import Prediction

find_images = sources.find_images


def predict_files(
    run: trained.Trained,
    paths: Sequence[epath.Path],
    output: epath.PathLike,
    *,
    every: int = 1,
    overwrite: bool = False,
    probabilities: str = "",
    **how,
) -> list[str]:
    """Writes masks and overlays of every image, and ``areas.csv``; prints a summary.

    A mask is a palette PNG of class ids at the image's own size, upright as a viewer
    shows the photo (an EXIF rotation is applied); of a multilabel task there is a PNG
    of 0 and 255 for each class. Several processes all read the images, and share the
    writing.

    Args:
        run: network, class names and palette.
        paths: images and videos.
        output: folder to write to, made if need be.
        every: of videos, work on each ``every``-th frame.
        overwrite: whether images whose results exist are worked on again.
        probabilities: a key of ``outputs.PROBABILITIES``.
        **how: see ``predictor.Predictor``.

    Returns:
        One sentence for each file that is no readable image; the others went on.

    Raises:
        UserError: values that make no sense, or a folder that cannot be written.
    """
    if every < 1:
        raise UserError(f"--every={every} must be 1 or more.")
    _require_elsewhere(paths, epath.Path(output))
    predictor = Predictor(run, probabilities=PROBABILITIES[probabilities], **how)
    outputs = agreement.main_first(
        lambda: Outputs(
            output,
            run.class_names,
            run.palette,
            multilabel=run.task.multilabel,
            probabilities=probabilities,
        )
    )
    job = _Job(predictor, outputs, Areas(run.class_names))
    agreement.require_same(
        {"the number of files in --output": outputs.number},
        "give all of them the same folder",
    )
    pictures = sources.pictures(
        paths,
        every=every,
        is_done=(lambda stem: False) if overwrite else outputs.is_done,
        intensity_range=tuple(run.config.data.intensity_range),
    )
    job.run(pictures, sources.expected(paths, every))
    if processes.is_main():
        job.report()
    return job.failures


def _require_elsewhere(paths: Sequence[epath.Path], output: epath.Path) -> None:
    """Raises UserError where masks would be taken for images the next time."""
    folders = {_real(path.parent) for path in paths}
    if len(paths) > 1 and _real(output) in folders:
        raise UserError(
            f"--output={sources.printable(output)} is a folder of the images; choose "
            "another, so that masks are not taken for images the next time."
        )


def _real(folder: epath.Path) -> str:
    return str(folder) if remote.is_url(folder) else os.path.realpath(folder)


@dataclasses.dataclass
class _Job:
    """Pictures on their way from files to files."""

    predictor: Predictor
    outputs: Outputs
    areas: Areas
    failures: list[str] = dataclasses.field(default_factory=list)
    done: int = 0
    skipped: int = 0

    def run(self, pictures: Iterator[sources.Picture], expected: int) -> None:
        """Does all; what is read ahead, or waits to be written, is a few images."""
        threads = min(8, os.cpu_count() or 1)
        reader = futures.ThreadPoolExecutor(threads, "read")
        writer = futures.ThreadPoolExecutor(threads, "write")
        limit = 2 * max(threads, self.predictor.batch_size)
        if self.predictor.tile:  # Each image may take a good part of the memory.
            limit = 1
        writing = collections.deque()
        first, _, step = processes.share()
        try:
            with tqdm.tqdm(
                total=expected,
                desc="predicting",
                unit="image",
                disable=not processes.is_main(),
            ) as self._progress:
                if self.predictor.tile:
                    self.predictor.on_part = self._tell
                found = self.predictor.stream(self._read(pictures, reader, limit))
                for number, prediction in enumerate(found):
                    self.done += 1
                    share = number % step == first
                    writing.append(writer.submit(self._write, prediction, share))
                    while len(writing) > limit or writing and writing[0].done():
                        self._written(writing.popleft())
                while writing:
                    self._written(writing.popleft())
                self._progress.total = self._progress.n
        finally:
            for pool in (reader, writer):
                pool.shutdown(cancel_futures=True)

    def _read(
        self,
        pictures: Iterator[sources.Picture],
        reader: futures.ThreadPoolExecutor,
        limit: int,
    ) -> Iterator[Prediction]:
        """Images that are to be segmented, read ahead and in order."""
        ahead = collections.deque()
        for picture in pictures:
            ahead.append(reader.submit(self._load, picture))
            if len(ahead) > limit:
                yield from self._loaded(ahead.popleft())
        while ahead:
            yield from self._loaded(ahead.popleft())

    def _load(self, picture: sources.Picture) -> Prediction | None:
        if picture.load is None:
            if processes.is_main():
                self.areas.add(picture.name, self.outputs.read(picture.stem))
            return None
        self.outputs.require_names(picture.stem)
        return self.predictor.prepare(picture.load(), picture)

    def _loaded(self, future: futures.Future) -> Iterator[Prediction]:
        try:
            prediction = future.result()
        except UserError as error:
            self.failures.append(str(error))
            self._progress.update()
            return
        if prediction is not None:
            yield prediction
        else:
            self.skipped += 1
            self._progress.total = max(0, self._progress.total - 1)

    def _write(self, prediction: Prediction, share: bool) -> None:
        if share:
            self.outputs.write(
                prediction.tag.stem,
                prediction.image,
                prediction.ids,
                prediction.probabilities,
            )
        if processes.is_main():
            self.areas.add(prediction.tag.name, prediction.ids)

    def _tell(self, prediction: Prediction) -> None:
        left = prediction.remaining
        self._progress.set_postfix_str(f"{left} tiles left" if left else "")

    def _written(self, future: futures.Future) -> None:
        future.result()
        self._progress.update()

    def report(self) -> None:
        """Writes the areas and prints what there is now; for the main process."""
        folder = sources.printable(self.outputs.folder)
        print(f"Segmented {self.done} image(s) into {folder}.")
        if self.skipped:
            print(
                f"Skipped {self.skipped} whose results were there, whatever settings "
                "made them; --overwrite works on them again."
            )
        if len(self.areas):
            self.outputs.write_areas(self.areas)
            print(f"Class areas, of each image in {folder}/{AREAS}, in the mean:")
            print(self.areas.table(), flush=True)
