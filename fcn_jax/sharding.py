"""The mesh, and the only module that knows there are several processes.

Everything else is written as for one big device: arrays are global, the batch is
sharded along the mesh axis ``data``, parameters are replicated, and the compiler adds
the communication.
"""

from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding

from fcn_jax.errors import UserError


def make_mesh() -> jax.sharding.Mesh:
    """All devices of all processes along one axis, ``data``.

    ``Auto``: the compiler partitions, as Linen's modules expect.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def by_example(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis split over the devices: batches."""
    return NamedSharding(mesh, jax.P("data"))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The whole array on every device: parameters, counts."""
    return NamedSharding(mesh, jax.P())


def process() -> dict[str, int]:
    """This process's place, as keyword arguments of the data streams."""
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def is_main_process() -> bool:
    """Whether this process is the one that writes logs and files."""
    return jax.process_index() == 0


def check_batch_size(name: str, batch_size: int, accumulation_steps: int = 1) -> None:
    """Raises UserError unless the devices share a batch evenly."""
    devices, parts = jax.device_count(), jax.device_count() * accumulation_steps
    if batch_size < 1 or batch_size % parts:
        micro = f" x {accumulation_steps} accumulation steps"
        raise UserError(
            f"{name}={batch_size} does not divide evenly among {devices} device(s)"
            f"{micro if accumulation_steps > 1 else ''}; use a multiple of {parts}."
        )


def to_devices(
    batches: Iterator[dict[str, np.ndarray]], mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Turns each process's shares into global arrays, one batch ahead of their use.

    The transfer of the next batch thus runs while the device computes.
    """
    sharding = by_example(mesh)
    ahead = None
    for batch in batches:
        batch = jax.make_array_from_process_local_data(sharding, batch)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead


def gather(x: jax.Array) -> np.ndarray:
    """The whole of a global array, on every process; all of them must call."""
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
