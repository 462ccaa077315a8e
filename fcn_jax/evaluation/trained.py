"""A network with everything needed to use it: from a workdir, or published weights."""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from etils import epath

from fcn_jax import agreement, sharding
from fcn_jax.errors import UserError
from fcn_jax.evaluation import tasks
from fcn_jax.models import fcn
from fcn_jax.models.weights import Weights
from fcn_jax.training import checkpoints, init_from, resume, setup, state


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network brought to life.

    Attributes:
        name: the step of its checkpoint, or the name of its weights.
        config: that of its training.
        class_names: name of each class id.
        palette: uint8 [256,3], RGB of each class id.
        model: maps images to logits.
        task: what the logits mean.
        variables: for ``model.apply``, on ``mesh``, see ``sharding.of_state``.
        mesh: all devices.
        trained_on: data sets and splits, such as ``voc/train``.
    """

    name: str
    config: ml_collections.ConfigDict
    class_names: tuple[str, ...]
    palette: np.ndarray
    model: fcn.FCN
    task: tasks.Task
    variables: dict
    mesh: jax.sharding.Mesh
    trained_on: tuple[str, ...]


def load(
    workdir: epath.PathLike,
    step: str = "best",
    mesh: jax.sharding.Mesh | None = None,
    thresholds: Sequence[float] | None = None,
) -> Trained:
    """Loads a checkpoint.

    Args:
        workdir: of a run.
        step: ``best`` by validation mIoU, ``latest``, or a step's number.
        mesh: the devices to use; None: all, for a batch's images.
        thresholds: of a multilabel task, see ``tasks.make``; None: the config's.

    Raises:
        UserError: no such workdir or step, a damaged checkpoint, or thresholds that do
            not fit.
    """
    agreement.require_shared(workdir, "--workdir")
    checkpoints.require_checkpoints(workdir)
    mesh = mesh or sharding.make_mesh()
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        number = checkpoints.find_step(checkpointer, step)
        metadata = checkpoints.read_metadata(checkpointer, number)
        config = ml_collections.ConfigDict(metadata["config"])
        if thresholds and config.task != "multilabel":
            raise UserError(
                f"--thresholds are for multilabel networks, and {workdir} is one of "
                f"task={config.task}; leave them out."
            )
        if thresholds:
            config.thresholds = tuple(thresholds)
        task = _make_task(config, metadata["class_names"])
        model = setup.make_model(
            config,
            len(metadata["class_names"]),
            mean=metadata["mean"],
            std=metadata["std"],
        )
        shapes = jax.eval_shape(lambda: state.init_variables(model, jax.random.key(0)))
        variables = checkpoints.restore_variables(
            checkpointer,
            number,
            checkpoints.abstract(shapes, sharding.of_state(mesh, shapes)),
        )
    return Trained(
        name=str(number),
        config=config,
        class_names=tuple(metadata["class_names"]),
        palette=np.asarray(metadata["palette"], np.uint8),
        model=model,
        task=task,
        variables=variables,
        mesh=mesh,
        trained_on=tuple(metadata["trained_on"]),
    )


def _make_task(
    config: ml_collections.ConfigDict, class_names: Sequence[str]
) -> tasks.Task:
    return tasks.make(config.task, len(class_names), config.thresholds)


def read_weights(config: ml_collections.ConfigDict) -> Weights:
    """Reads ``config.init_from``, before any data are looked for.

    Raises:
        UserError: settings, or weights, that make no network.
    """
    setup.check(config)
    weights = setup.read_weights(config)
    if weights is None:
        raise UserError(
            "config.init_from is empty, so there is nothing to use; set it to a weight "
            "file or a workdir, or give --workdir without --config."
        )
    return weights


def from_weights(
    config: ml_collections.ConfigDict,
    weights: Weights,
    class_names: tuple[str, ...],
    palette: np.ndarray,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[Trained, str]:
    """Brings weights to life, without training.

    Args:
        config: describes the network, see ``configs/default.py``.
        weights: those of ``config.init_from``.
        class_names: name of each class id.
        palette: uint8 [256,3].
        mesh: see ``load``.

    Returns:
        The network, and a report of what was loaded.

    Raises:
        UserError: weights that are not a whole network of these classes.
    """
    source = config.init_from
    if weights.class_names is not None:
        resume.require_same_classes(weights.class_names, class_names)
    model = setup.make_model(
        config, len(class_names), mean=weights.mean, std=weights.std
    )
    transplant = init_from.transplant(
        weights, model, source=source, pattern=config.init_params
    )
    if transplant.reinitialized:
        raise UserError(
            f"init_from={source} is no whole FCN-{model.stride}s of "
            f"{len(class_names)} classes: it has nothing that fits "
            f"{init_from.layers(transplant.reinitialized)}; train on it with "
            "run_train.py first, or take other weights or another config."
        )
    mesh = mesh or sharding.make_mesh()
    variables = transplant.variables
    return Trained(
        name=epath.Path(source).stem,
        config=config,
        class_names=tuple(class_names),
        palette=palette,
        model=model,
        task=_make_task(config, class_names),
        variables=sharding.put(variables, sharding.of_state(mesh, variables)),
        mesh=mesh,
        trained_on=weights.trained_on,
    ), transplant.report
