"""A trained network with everything needed to use it, from its workdir alone."""

import dataclasses

import jax
import ml_collections
import numpy as np
from etils import epath

from fcn_jax import sharding
from fcn_jax.models import fcn
from fcn_jax.training import checkpoints, state


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint brought back to life.

    Attributes:
        config: that of its training.
        class_names: name of each class id.
        palette: uint8 [256,3], RGB of each class id.
        model: maps images to logits.
        variables: for ``model.apply``, replicated over ``mesh``.
        step: optimization steps taken.
        mesh: all devices.
    """

    config: ml_collections.ConfigDict
    class_names: tuple[str, ...]
    palette: np.ndarray
    model: fcn.FCN
    variables: dict
    step: int
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
        model = fcn.create(len(metadata["class_names"]), **config.model)
        shapes = jax.eval_shape(lambda: state.init_variables(model, jax.random.key(0)))
        variables = checkpoints.restore_variables(
            checkpointer,
            number,
            checkpoints.abstract(shapes, sharding.replicated(mesh)),
        )
    return Trained(
        config=config,
        class_names=tuple(metadata["class_names"]),
        palette=np.asarray(metadata["palette"], np.uint8),
        model=model,
        variables=variables,
        step=number,
        mesh=mesh,
    )
