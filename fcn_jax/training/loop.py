"""Training from a config, start to end, with evaluation, checkpoints and logs."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
import optax
from etils import epath
from orbax.checkpoint import v1 as ocp

from fcn_jax import agreement, memory, processes, remote, sharding
from fcn_jax.data import datasets, pipeline
from fcn_jax.errors import Preempted, UserError
from fcn_jax.evaluation import evaluate, metrics
from fcn_jax.reporting import colors, log, table
from fcn_jax.training import checkpoints, init_from, inputs, resume, setup
from fcn_jax.training import state as state_lib

OVERLAYS = "overlays"


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, step: str = "latest"
) -> state_lib.TrainState:
    """Trains to ``config.num_steps``, from a checkpoint of the workdir if it has any.

    Args:
        config: see ``configs/default.py``.
        workdir: holds the run: checkpoints, logs and overlays.
        step: of the checkpoint to go on from, ``latest`` or its number; later ones
            are set aside.

    Returns:
        The final state.

    Raises:
        UserError: for wrong settings or data, before anything is written; or where
            the loss is no longer finite, or the disk is full.
        Preempted: the run was told to end and has been saved.
    """
    workdir = epath.Path(workdir)
    setup.check(config)
    mesh = setup.make_mesh(config)
    agreement.main_first(lambda: remote.require_usable(workdir, write=True))
    agreement.require_shared(workdir, "--workdir")
    start, saved = resume.find(workdir, step)
    weights = None
    if saved is not None:
        resume.require_same_config(saved["config"], config)
    else:
        weights = setup.read_weights(config)
    before = saved["trained_on"] if saved else weights.trained_on if weights else ()
    here = f"{config.data.name}/{config.data.train_split}"
    trained_on = list(dict.fromkeys([*before, here]))
    warning = datasets.require_no_leak(
        trained_on, f"{config.data.name}/{config.data.val_split}"
    )
    dataset = inputs.load_dataset(
        config, (config.data.train_split, config.data.val_split)
    )
    train_split = dataset.split(config.data.train_split)
    num_classes = len(dataset.class_names)
    if saved is not None:
        resume.require_same_classes(saved["class_names"], dataset.class_names)

    mean, std = setup.preprocessing(saved, weights, train_split)
    model = setup.make_model(config, num_classes, mean=mean, std=std)
    if weights is not None:
        transplant = init_from.transplant(
            weights,
            model,
            source=config.init_from,
            pattern=config.init_params,
            class_names=dataset.class_names,
        )
    init_key, step_key = sharding.random_keys(config.seed, mesh)
    training = setup.make_training(config, model, train_split, mesh)
    augment = inputs.make_augment(config, train_split.max_size, mesh, dataset.num_masks)
    evaluator = evaluate.make_evaluator(
        config, model, dataset, config.data.val_split, mesh
    )

    params = training.shapes.params
    processes.say(
        f"{dataset.name}: {len(train_split.source)} training images, {num_classes} "
        f"classes. FCN-{model.stride}s, VGG-{model.depth}, "
        f"{setup.count(params):,} parameters, of which "
        f"{setup.count(params, training.trainable):,} train, on "
        f"{sharding.describe(mesh)}."
    )
    if warning:
        processes.say(warning)
    for path in agreement.main_first(lambda: resume.set_aside_after(workdir, start)):
        processes.say(f"Set aside a later checkpoint: {path}.")
    with checkpoints.open_folder(workdir, write=True) as checkpointer:
        if saved is None:
            state = training.create(init_key)
            if weights is not None:
                state = transplant.into(state)
                processes.say(transplant.report)
            processes.say(f"Training from the start in {workdir}.")
        else:
            like = checkpoints.abstract(training.shapes, training.shardings)
            state = checkpoints.restore(checkpointer, start, like)
            processes.say(f"Resuming {workdir} at step {start}.")
        with contextlib.ExitStack() as stack:
            run_log = None
            if processes.is_main():
                checkpoints.write_config(workdir, config)
                (workdir / OVERLAYS).mkdir(exist_ok=True)
                run_log = stack.enter_context(log.RunLog(workdir, resume_step=start))
            run = _Run(
                config=config,
                workdir=workdir,
                dataset=dataset,
                mesh=mesh,
                evaluator=evaluator,
                checkpointer=checkpointer,
                preemption=stack.enter_context(processes.Preemption()),
                run_log=run_log,
                schedule=training.schedule,
                metadata=checkpoints.metadata(
                    config,
                    dataset.class_names,
                    dataset.palette,
                    mean=model.mean,
                    std=model.std,
                    trained_on=trained_on,
                ),
            )
            state = run.train(state, start, training.step, augment, step_key)
        checkpoints.wait(checkpointer)
        best = checkpoints.find_step(checkpointer, "best")
        best_iou = checkpoints.mean_iou_of(checkpointer, best)
    processes.say(
        f"Done. Best mean IoU {best_iou:.4f} at step {best}.\n"
        f"  overlays      {workdir / OVERLAYS}/ (image | truth | prediction)\n"
        f"  scores        python run_eval.py --workdir={workdir}\n"
        f"  your images   python run_predict.py --workdir={workdir} "
        "--input=IMAGE_OR_FOLDER --output=FOLDER\n"
        f"  curves        tensorboard --logdir={workdir}"
    )
    return state


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """The loop and what it does at its stops."""

    config: ml_collections.ConfigDict
    workdir: epath.Path
    dataset: datasets.Dataset
    mesh: jax.sharding.Mesh
    evaluator: evaluate.Evaluator
    checkpointer: ocp.training.Checkpointer
    preemption: processes.Preemption
    run_log: log.RunLog | None  # The main process's.
    schedule: optax.Schedule
    metadata: dict[str, Any]

    @property
    def _train_source(self) -> Sequence[dict]:
        return self.dataset.split(self.config.data.train_split).source

    def train(self, state, start: int, train_step, augment, key):
        """Steps from ``start`` to ``num_steps``; the host is one step ahead."""
        config = self.config
        jax.block_until_ready(state)
        memory.give_back()  # What making or reading the state took.
        progress = log.Progress(config.num_steps, config.batch_size, start)
        began, pending = time.monotonic(), None
        with contextlib.closing(self._batches(augment, start)) as batches:
            for step, batch in zip(
                range(start + 1, config.num_steps + 1),
                sharding.to_devices(batches, self.mesh, config.batch_size),
                strict=False,
            ):
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, scalars = train_step(state, batch, key)
                if step == start + 1:
                    jax.block_until_ready(scalars)
                    memory.give_back()  # What compiling took.
                    seconds = time.monotonic() - began
                    processes.say(
                        f"First step after {seconds:.1f} s, compilation included."
                    )
                # Fetched only now that the next step is on its way: no waiting.
                if pending is not None:
                    self._report(*pending, progress)
                pending = (step, scalars)

                last = step == config.num_steps
                evaluates = last or step % config.eval_every == 0
                ends = self.preemption.reached(step) and not last
                if evaluates or ends or step % config.checkpoint_every == 0:
                    self._report(*pending, progress)
                    pending = None
                    with progress.pause():
                        self._stop(state, step, evaluates=evaluates)
                if ends:
                    checkpoints.wait(self.checkpointer)
                    raise Preempted(
                        f"Told to end: step {step} is saved in {self.workdir}; start "
                        "the same command again to go on."
                    )
        return state

    def _batches(self, augment, start_step: int) -> grain.DatasetIterator:
        config = self.config
        return pipeline.train_batches(
            self._train_source,
            augment=augment,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            num_workers=config.data.num_workers,
            num_threads=config.data.num_threads,
            with_replacement=config.data.with_replacement,
            places=sharding.own_examples(self.mesh, config.batch_size),
        )

    def _report(self, step: int, scalars: dict, progress: log.Progress) -> None:
        """Checks a step's scalars; prints and logs them every ``log_every`` steps."""
        values = {name: float(value) for name, value in scalars.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                latest = self.checkpointer.latest
                kept = f"step {latest.step}" if latest else "none yet"
                raise UserError(
                    f"{name} is {value} at step {step}, so training stopped; the last "
                    f"good checkpoint ({kept}) is kept in {self.workdir}; lower "
                    "optimizer.learning_rate or set optimizer.clip_norm."
                )
        if step % self.config.log_every == 0 or step == self.config.num_steps:
            rate = float(self.schedule(step - 1))
            values = {"loss": values["loss"], "learning_rate": rate} | values
            steps_per_epoch = len(self._train_source) / self.config.batch_size
            processes.say(progress.line(step, values, steps_per_epoch))
            self._log(step, {f"train/{name}": v for name, v in values.items()})

    def _stop(self, state, step: int, *, evaluates: bool) -> None:
        """Evaluates, if asked to, and then saves: the score goes with the state."""
        if not bool(state_lib.all_finite(state.params)):
            raise UserError(
                f"A parameter is not finite after step {step}: training stopped, the "
                f"checkpoints before it are kept in {self.workdir}; lower "
                "optimizer.learning_rate or set optimizer.clip_norm."
            )
        mean_iou = None
        if evaluates:
            val = self.dataset.split(self.config.data.val_split)
            count = min(self.config.num_overlays, len(val.source))
            # Spread over the split: neighbours are often alike.
            shown = [i * len(val.source) // count for i in range(count)]
            scores, predictions = self.evaluator(state.variables, keep=shown)
            mean_iou = scores["mean_iou"]
            processes.say(table.per_class_table(self.dataset.class_names, scores))
            self._log(step, metrics.as_scalars(scores))
            if processes.is_main():
                self._draw(step, val.source, predictions)
        if self.run_log is not None:
            self.run_log.flush()
        checkpoints.save(
            self.checkpointer, state, mean_iou=mean_iou, metadata=self.metadata
        )
        memory.give_back()

    def _log(self, step: int, values: dict[str, float | None]) -> None:
        if self.run_log is not None:
            self.run_log.scalars(step, values)

    def _draw(self, step: int, source, predictions: dict[int, np.ndarray]) -> None:
        """Pictures of some validation images, as files and in TensorBoard."""
        pictures = colors.panels(
            {source[i]["name"]: (source[i], p) for i, p in predictions.items()},
            self.dataset.palette,
            self.dataset.class_names,
        )
        for name, picture in pictures.items():
            colors.save_image(self.workdir / OVERLAYS / f"{name}.png", picture)
        self.run_log.images(step, {f"val/{n}": p for n, p in pictures.items()})
