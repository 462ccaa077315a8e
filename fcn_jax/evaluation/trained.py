"""A network with everything needed to use it: from a workdir, or published weights."""

import dataclasses

import jax
import ml_collections
import numpy as np
from etils import epath

from fcn_jax import sharding
from fcn_jax.errors import UserError
from fcn_jax.models import fcn
from fcn_jax.training import checkpoints, init_from, setup, state


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network brought to life.

    Attributes:
        name: the step of its checkpoint, or the name of its weights.
        config: that of its training.
        class_names: name of each class id.
        palette: uint8 [256,3], RGB of each class id.
        model: maps images to logits.
        variables: for ``model.apply``, replicated over ``mesh``.
        mesh: all devices.
    """

    name: str
    config: ml_collections.ConfigDict
    class_names: tuple[str, ...]
    palette: np.ndarray
    model: fcn.FCN
    variables: dict
    mesh: jax.sharding.Mesh


def load(workdir: epath.PathLike, step: str = "best") -> Trained:
    """Loads a checkpoint: ``best`` by validation mIoU, ``latest``, or a step's number.

    Raises:
        UserError: no such workdir or step.
    """
    checkpoints.require_checkpoints(workdir)
    mesh = sharding.make_mesh()
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        number = checkpoints.find_step(checkpointer, step)
        metadata = checkpoints.read_metadata(checkpointer, number)
        config = ml_collections.ConfigDict(metadata["config"])
        model = setup.make_model(
            config, len(metadata["class_names"]), **setup.mean_std(metadata, None)
        )
        shapes = jax.eval_shape(lambda: state.init_variables(model, jax.random.key(0)))
        variables = checkpoints.restore_variables(
            checkpointer,
            number,
            checkpoints.abstract(shapes, sharding.replicated(mesh)),
        )
    return Trained(
        name=str(number),
        config=config,
        class_names=tuple(metadata["class_names"]),
        palette=np.asarray(metadata["palette"], np.uint8),
        model=model,
        variables=variables,
        mesh=mesh,
    )


def from_weights(
    config: ml_collections.ConfigDict, class_names: tuple[str, ...], palette: np.ndarray
) -> tuple[Trained, str]:
    """Brings ``config.init_from`` to life, without training.

    Args:
        config: describes the network, see ``configs/default.py``.
        class_names: name of each class id.
        palette: uint8 [256,3].

    Returns:
        The network, and a report of what was loaded.

    Raises:
        UserError: weights that are not a whole network of this kind.
    """
    setup.check(config)
    source = config.init_from
    if not source:
        raise UserError(
            "config.init_from is empty, so there is nothing to use; set it to a weight "
            "file or a workdir, or give --workdir alone."
        )
    weights = init_from.read(
        source, cache=config.weights_cache, family=config.init_family
    )
    model = setup.make_model(config, len(class_names), **setup.mean_std(None, weights))
    transplant = init_from.transplant(
        weights, model, source=source, pattern=config.init_params
    )
    if transplant.anew:
        raise UserError(
            f"init_from={source} is no whole FCN-{model.stride}s of "
            f"{len(class_names)} classes: it has nothing that fits "
            f"{init_from.layers(transplant.anew)}; train on it with run_train.py "
            "first, or take other weights or another config."
        )
    mesh = sharding.make_mesh()
    return Trained(
        name=epath.Path(source).stem,
        config=config,
        class_names=tuple(class_names),
        palette=palette,
        model=model,
        variables=jax.device_put(transplant.variables, sharding.replicated(mesh)),
        mesh=mesh,
    ), transplant.report
