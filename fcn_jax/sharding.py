"""The mesh, and where on it arrays lie.

Everything else is written as for one big device: arrays are global, and the compiler
adds the communication. The mesh has three axes. Batches are split along ``data`` and
``fsdp``, and the rows of their images along ``spatial``, where the compiler exchanges
the rows that convolutions see across a border. Parameters and the optimizer's state are
split along ``fsdp`` and otherwise on every device.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding

from fcn_jax.errors import UserError

AXES = ("data", "fsdp", "spatial")
# Arrays of fewer numbers are not split along `fsdp`: what that saves is not worth the
# messages.
MIN_SPLIT = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, spatial: int = 1) -> jax.sharding.Mesh:
    """All devices of all processes, arranged along ``AXES``.

    Where the devices come in slices (of TPUs, or machines with GPUs) that a slower
    network connects, these lie along ``data``, whose messages are the fewest, or
    if it is too short, along the next axes.

    Args:
        data: devices along the axis; -1, for one of the three: all that remain.
        fsdp: likewise.
        spatial: likewise.

    Raises:
        UserError: sizes that do not multiply to the number of devices.
    """
    devices = jax.devices()
    sizes = _complete((data, fsdp, spatial), len(devices))
    # `Auto`: the compiler partitions, as Linen's modules expect.
    types = (AxisType.Auto,) * len(AXES)
    if len({getattr(device, "slice_index", 0) for device in devices}) == 1:
        return jax.make_mesh(sizes, AXES, axis_types=types)
    return jax.sharding.Mesh(_arrange(sizes, devices), AXES, axis_types=types)


def _arrange(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices of several slices, as an array of these sizes."""
    slices = remaining = len({device.slice_index for device in devices})
    between = []
    for size in sizes:
        between.append(math.gcd(size, remaining))
        remaining //= between[-1]
    if remaining != 1:
        raise UserError(
            f"A mesh of {' x '.join(map(str, sizes))} does not come apart into the "
            f"{slices} slices of devices; make mesh.data a multiple of their number."
        )
    within = tuple(n // m for n, m in zip(sizes, between, strict=True))
    return mesh_utils.create_hybrid_device_mesh(
        within, between, devices, allow_split_physical_axes=True
    )


def _complete(sizes: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """Puts what remains of the devices in place of -1."""
    named = ", ".join(f"mesh.{n}={s}" for n, s in zip(AXES, sizes, strict=True))
    known = math.prod(s for s in sizes if s != -1)
    if any(s < 1 and s != -1 for s in sizes) or sizes.count(-1) > 1:
        raise UserError(
            f"{named}: every size must be 1 or more, or -1, for one of them, which "
            "means all devices that remain."
        )
    if devices % known or (known != devices and -1 not in sizes):
        raise UserError(
            f"{named}: the sizes do not multiply to the {devices} device(s) that there "
            "are; set one of them to -1, or start on as many devices as they make."
        )
    return tuple(devices // known if s == -1 else s for s in sizes)


def num_parts(mesh: jax.sharding.Mesh) -> int:
    """The number of parts that a batch is split into; each has whole images."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def of_batch(mesh: jax.sharding.Mesh, ndim: int) -> NamedSharding:
    """Images and labels [B,H,...] split by image and by row, [B] and [B,2] by image."""
    rows = ("spatial",) if ndim > 2 else ()
    return NamedSharding(mesh, jax.P(("data", "fsdp"), *rows))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, jax.P())


def of_state(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """Shardings of parameters and optimizer state: along ``fsdp``, by the largest axis.

    Args:
        mesh: see ``make_mesh``.
        tree: arrays or their shapes.

    Returns:
        The same tree of shardings. An array is whole on every device if ``fsdp`` is 1,
        divides none of its axes, or if it is small (``MIN_SPLIT``).
    """
    parts = mesh.shape["fsdp"]

    def of(x) -> NamedSharding:
        divisible = [i for i, n in enumerate(x.shape) if n % parts == 0]
        if parts == 1 or not divisible or math.prod(x.shape) < MIN_SPLIT:
            return replicated(mesh)
        axis = max(divisible, key=lambda i: x.shape[i])
        return NamedSharding(mesh, jax.P(*[None] * axis, "fsdp"))

    return jax.tree.map(of, tree)


def whole(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Under jit: every array gathered to every device, as computing with it needs."""
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def canvas(mesh: jax.sharding.Mesh, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, of which the rows are made enough to be split evenly."""
    spatial = mesh.shape["spatial"]
    return -(-size[0] // spatial) * spatial, size[1]


def check_batch_size(
    mesh: jax.sharding.Mesh, batch_size: int, accumulation_steps: int = 1
) -> None:
    """Raises UserError unless the parts of the mesh share a batch evenly."""
    parts = num_parts(mesh)
    if batch_size < 1 or batch_size % (parts * accumulation_steps):
        micro = f" x {accumulation_steps} accumulation steps"
        raise UserError(
            f"batch_size={batch_size} does not divide evenly among the {parts} part(s) "
            "that the mesh splits it into (data x fsdp)"
            f"{micro if accumulation_steps > 1 else ''}; use a multiple of "
            f"{parts * accumulation_steps}."
        )


def own_examples(mesh: jax.sharding.Mesh, batch_size: int) -> tuple[int, ...]:
    """The places in a batch of the images that this process's devices hold, ascending.

    Processes that hold different rows of the same images have the same ones.
    """
    places = of_batch(mesh, 1).addressable_devices_indices_map((batch_size,))
    own = {i for (part,) in places.values() for i in range(batch_size)[part]}
    return tuple(sorted(own))


def to_devices(
    batches: Iterator[dict[str, np.ndarray]],
    mesh: jax.sharding.Mesh,
    batch_size: int,
) -> Iterator[dict[str, jax.Array]]:
    """Turns the images of ``own_examples`` into global arrays, a batch ahead.

    The transfer of the next batch thus runs while the devices compute.
    """
    own = own_examples(mesh, batch_size)

    def to_global(x: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            images = range(batch_size)[index[0]]
            first = own.index(images[0])
            return x[(slice(first, first + len(images)), *index[1:])]

        shape = (batch_size, *x.shape[1:])
        return jax.make_array_from_callback(shape, of_batch(mesh, x.ndim), part)

    ahead = None
    for batch in batches:
        batch = jax.tree.map(to_global, batch)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead


def put(tree: Any, shardings: Any) -> Any:
    """Places arrays that every process has whole; each device takes its part.

    ``jax.device_put`` would first send them all around, to see that they are equal.
    """
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(
            np.shape(x), sharding, lambda index: np.asarray(x)[index]
        ),
        tree,
        shardings,
    )


def random_keys(seed: int, mesh: jax.sharding.Mesh) -> tuple[jax.Array, jax.Array]:
    """Two keys, for the initial parameters and for the steps, on every device."""
    split = jax.jit(
        lambda: tuple(jax.random.split(jax.random.key(seed))),
        out_shardings=replicated(mesh),
    )
    return split()


def describe(mesh: jax.sharding.Mesh) -> str:
    """In words, such as "8 TPU v5e device(s), data 4 x fsdp 2"."""
    axes = " x ".join(f"{name} {n}" for name, n in mesh.shape.items() if n > 1)
    kind = mesh.devices.flat[0].device_kind
    return f"{mesh.size} {kind} device(s){', ' * bool(axes)}{axes}"


def gather(x: jax.Array) -> np.ndarray:
    """The whole of a global array, on every process; all of them must call."""
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
