"""Training from a config, start to end, with evaluation, checkpoints and logs."""

import contextlib
import dataclasses
import functools
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

from fcn_jax import sharding
from fcn_jax.data import datasets, pipeline
from fcn_jax.errors import UserError
from fcn_jax.evaluation import evaluate, metrics
from fcn_jax.reporting import colors, log, table
from fcn_jax.training import checkpoints, init_from, losses, optim, setup
from fcn_jax.training import state as state_lib
from fcn_jax.training import step as step_lib

OVERLAYS = "overlays"


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> state_lib.TrainState:
    """Trains to ``config.num_steps``, from the workdir's latest checkpoint if any.

    Args:
        config: see ``configs/default.py``.
        workdir: holds the run: checkpoints, logs and overlays.

    Returns:
        The final state.

    Raises:
        UserError: for wrong settings or data, before anything is written; or where
            the loss is no longer finite.
    """
    workdir = epath.Path(workdir)
    setup.check(config)
    saved = checkpoints.latest_metadata(workdir)
    if saved is not None:
        checkpoints.require_same_config(saved["config"], config)
    weights = setup.read_weights(config) if saved is None else None
    inherited = setup.inherit(saved, weights)
    here = f"{config.data.name}/{config.data.train_split}"
    trained_on = list(dict.fromkeys([*inherited.trained_on, here]))
    warning = datasets.require_no_leak(
        trained_on, f"{config.data.name}/{config.data.val_split}"
    )
    dataset = evaluate.load_dataset(
        config.data, (config.data.train_split, config.data.val_split)
    )
    train_split = dataset.split(config.data.train_split)
    num_classes = len(dataset.class_names)
    if saved is not None:
        checkpoints.require_same_classes(saved["class_names"], dataset.class_names)

    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    model = setup.make_model(
        config, num_classes, mean=inherited.mean, std=inherited.std
    )
    if weights is not None:
        transplant = init_from.transplant(
            weights,
            model,
            source=config.init_from,
            pattern=config.init_params,
            class_names=dataset.class_names,
        )
    init_key, step_key = jax.device_put(
        tuple(jax.random.split(jax.random.key(config.seed))), everywhere
    )
    shapes = jax.eval_shape(lambda k: state_lib.init_variables(model, k), init_key)
    trainable = optim.trainable_mask(shapes["params"], config.trainable)
    schedule, tx = setup.make_optimizer(config, trainable)
    train_step = step_lib.make_train_step(
        model,
        tx,
        trainable=trainable,
        class_weights=losses.resolve_class_weights(
            config.loss.class_weights, train_split, num_classes
        ),
        label_smoothing=config.loss.label_smoothing,
        reduction=config.loss.reduction,
        accumulation_steps=config.accumulation_steps,
        out_shardings=everywhere,
    )
    evaluator = evaluate.make_evaluator(
        config, model, dataset, config.data.val_split, mesh
    )

    create = functools.partial(state_lib.create, model, tx)
    _say(
        f"{dataset.name}: {len(train_split.source)} training images, {num_classes} "
        f"classes. FCN-{model.stride}s, VGG-{model.depth}, "
        f"{setup.count(shapes['params']):,} parameters, of which "
        f"{setup.count(shapes['params'], trainable):,} train, on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)."
    )
    if warning:
        _say(warning)
    with checkpoints.open_folder(workdir, write=True) as checkpointer:
        if checkpointer.latest is None:
            state = jax.jit(create, out_shardings=everywhere)(init_key)
            if weights is not None:
                state = transplant.into(state)
                _say(transplant.report)
            _say(f"Training from the start in {workdir}.")
        else:
            like = checkpoints.abstract(jax.eval_shape(create, init_key), everywhere)
            state = checkpoints.restore(checkpointer, checkpointer.latest.step, like)
            _say(f"Resuming {workdir} at step {int(state.step)}.")
        if sharding.is_main_process():
            checkpoints.write_config(workdir, config)
            (workdir / OVERLAYS).mkdir(exist_ok=True)

        with log.RunLog(workdir, resume_step=int(state.step)) as run_log:
            run = _Run(
                config=config,
                workdir=workdir,
                dataset=dataset,
                evaluator=evaluator,
                checkpointer=checkpointer,
                run_log=run_log,
                schedule=schedule,
                metadata=checkpoints.metadata(
                    config,
                    dataset.class_names,
                    dataset.palette,
                    mean=model.mean,
                    std=model.std,
                    trained_on=trained_on,
                ),
            )
            augment = setup.make_augment(config, train_split.max_size)
            state = run.train(state, train_step, augment, step_key, mesh)
        checkpointer.wait()
        best = checkpoints.find_step(checkpointer, "best")
        best_iou = checkpoints.mean_iou_of(checkpointer, best)
    _say(
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
    evaluator: evaluate.Evaluator
    checkpointer: ocp.training.Checkpointer
    run_log: log.RunLog
    schedule: optax.Schedule
    metadata: dict[str, Any]

    @property
    def _train_source(self) -> Sequence[dict]:
        return self.dataset.split(self.config.data.train_split).source

    def train(self, state, train_step, augment, key, mesh) -> state_lib.TrainState:
        """Steps until ``num_steps``; the host is one step ahead of the device."""
        config, start = self.config, int(state.step)
        progress = log.Progress(config.num_steps, config.batch_size, start)
        began, pending = time.monotonic(), None
        with contextlib.closing(self._batches(augment, start)) as batches:
            for step, batch in zip(
                range(start + 1, config.num_steps + 1),
                sharding.to_devices(batches, mesh),
                strict=False,
            ):
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, scalars = train_step(state, batch, key)
                if step == start + 1:
                    jax.block_until_ready(scalars)
                    seconds = time.monotonic() - began
                    _say(f"First step after {seconds:.1f} s, compilation included.")
                # Fetched only now that the next step is on its way: no waiting.
                if pending is not None:
                    self._report(*pending, progress)
                pending = (step, scalars)

                last = step == config.num_steps
                evaluates = last or step % config.eval_every == 0
                if evaluates or step % config.checkpoint_every == 0:
                    self._report(*pending, progress)
                    pending = None
                    with progress.pause():
                        self._stop(state, step, evaluates=evaluates)
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
            **sharding.process(),
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
            _say(progress.line(step, values, steps_per_epoch))
            self.run_log.scalars(
                step, {f"train/{name}": value for name, value in values.items()}
            )

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
            _say(table.per_class_table(self.dataset.class_names, scores))
            self.run_log.scalars(step, metrics.as_scalars(scores))
            if sharding.is_main_process():
                self._draw(step, val.source, predictions)
        checkpoints.save(
            self.checkpointer, state, mean_iou=mean_iou, metadata=self.metadata
        )

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


def _say(text: str) -> None:
    if sharding.is_main_process():
        print(text, flush=True)
