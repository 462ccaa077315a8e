"""The same step or inference twice, here and in PyTorch, for the benchmarks to time.

Both sides start from the same parameters and images, without dropout, so that the
losses of the first steps can be compared.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax import memory, sharding
from fcn_jax.models import fcn, vgg
from fcn_jax.training import losses, optim, step
from fcn_jax.training import state as state_lib

# Steps whose losses are compared: later, either side's rounding has grown too far.
COMPARED = 3
SGD = {"learning_rate": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """FCN-8s on VGG-16 at full width, at work on a batch of random images.

    Attributes:
        work: ``train``: one step of SGD with momentum; ``infer``: the classes.
        geometry: ``same`` or ``caffe``.
        size: height and width.
        batch: images.
        dtype: of activations, ``float32`` or ``bfloat16``.
        num_classes: that are scored.
    """

    work: str
    geometry: str
    size: tuple[int, int]
    batch: int
    dtype: str
    num_classes: int = 21

    @classmethod
    def parse(cls, text: str) -> "Case":
        """From ``work:geometry:HEIGHTxWIDTH:batch:dtype`` and maybe ``:classes``."""
        work, geometry, size, batch, dtype, *classes = text.split(":")
        size = tuple(int(n) for n in size.split("x"))
        named = {"num_classes": int(classes[0])} if classes else {}
        return cls(
            work=work,
            geometry=geometry,
            size=size,
            batch=int(batch),
            dtype=dtype,
            **named,
        )

    def __str__(self):
        """As in the tables."""
        height, width = self.size
        return (
            f"{self.work}, {self.geometry}, {width}x{height}, batch {self.batch}, "
            f"{self.dtype}"
        )

    def row(self) -> dict:
        """The fields, for the result file."""
        height, width = self.size
        return dataclasses.asdict(self) | {"size": f"{width}x{height}"}

    def model(self) -> fcn.FCN:
        """Our network."""
        return fcn.create(
            self.num_classes, geometry=self.geometry, dropout=0.0, dtype=self.dtype
        )

    def data(self) -> dict[str, np.ndarray]:
        """Images uint8 [B,H,W,3], sizes, labels [B,H,W]."""
        rng = np.random.default_rng(0)
        shape = (self.batch, *self.size)
        # Coarse enough for a network to see something.
        coarse = rng.integers(0, 256, (self.batch, 8, 8, 3), np.uint8)
        rows, columns = (np.arange(n) * 8 // n for n in self.size)
        noise = rng.integers(0, 32, (*shape, 3), np.uint8)
        return {
            "image": coarse[:, rows][:, :, columns] // 8 * 7 + noise,
            "size": np.array([self.size] * self.batch, np.int32),
            "label": rng.integers(0, self.num_classes, shape).astype(np.uint8),
        }

    def flops(self) -> float:
        """Of the products that a step or an inference needs: convolutions and fc6."""
        shapes = _shapes(self)["params"]
        height, width = (n + 198 * (self.geometry == "caffe") for n in self.size)
        total, first = 0, 0
        for block, count in enumerate(vgg.BLOCKS[16], 1):
            for i in range(1, count + 1):
                kernel = shapes["encoder"][f"conv{block}_{i}"]["kernel"]
                total += 2 * height * width * kernel.size
                first = first or total
            height, width = -(-height // 2), -(-width // 2)
        if self.geometry == "caffe":
            height, width = height - 6, width - 6
        for name in ("fc6", "fc7"):
            total += 2 * height * width * shapes["encoder"][name]["kernel"].size
        # The gradient of the images is not needed.
        return self.batch * (3 * total - first if self.work == "train" else total)


def _shapes(case: Case):
    init = functools.partial(state_lib.init_variables, case.model())
    return jax.eval_shape(init, jax.random.key(0))


def write_parameters(case: Case, folder: str) -> str:
    """Draws parameters, He-scaled; returns the file that both sides read."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if len(leaf.shape) == 1:
            return np.zeros(leaf.shape, np.float32)
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
        if optim.name_of(path).startswith("decoder/"):
            scale /= 100  # The images are in units of 0-255.
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)

    params = jax.tree.map_with_path(draw, _shapes(case)["params"])
    path = pathlib.Path(folder) / f"parameters-{case.num_classes}.npz"
    named = {optim.name_of(p): leaf for p, leaf in optim.leaves(params)}
    np.savez(path, **named)
    return str(path)


def read_parameters(path: str) -> dict:
    """The parameters as nested arrays."""
    tree = {}
    with np.load(path) as file:
        for name in file.files:
            part, layer, leaf = name.split("/")
            tree.setdefault(part, {}).setdefault(layer, {})[leaf] = file[name]
    return tree


def forbid_tf32(dtype: str) -> None:
    """Makes both libraries multiply float32 as float32 on GPUs, in this process."""
    if dtype == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def ours(
    case: Case,
    path: str,
    *,
    batches: Callable[[Case], Iterator] | None = None,
    keep_freed: bool = True,
):
    """Our side, see ``measure.Side``: as in training, on a mesh of all devices.

    Args:
        case: what to do.
        path: of the parameters.
        batches: training: an endless iterator of batches; None: the same one always.
        keep_freed: whether freed memory stays with the process, as in training.
    """
    if keep_freed:
        memory.keep_freed()
    forbid_tf32(case.dtype)
    model, batch = case.model(), case.data()
    mesh = sharding.make_mesh()
    of_batch = {k: sharding.of_batch(mesh, v.ndim) for k, v in batch.items()}
    batch = jax.device_put(batch, of_batch)
    stream = itertools.repeat(batch)
    if batches:
        stream = sharding.to_devices(batches(case), mesh, case.batch)
    params = read_parameters(path)
    if case.work == "infer":
        variables = jax.device_put({"params": params}, sharding.replicated(mesh))

        @jax.jit
        def infer(variables, batch):
            logits = model.apply(variables, batch["image"], batch["size"])
            return logits.argmax(-1).astype("uint8"), logits.max(-1).mean()

        def last(results):
            classes, score = results[-1]
            return np.asarray(classes), float(score)

        return unit(lambda: infer(variables, batch), last)

    trainable = jax.tree.map(lambda _: True, params)
    tx = optim.make_optimizer("sgd", trainable=trainable, **SGD)

    def create(params):
        # Copied: arrays that share NumPy's memory cannot be donated.
        params = jax.tree.map(jnp.copy, params)
        return state_lib.TrainState(jnp.int32(0), params, {}, tx.init(params))

    shapes = jax.eval_shape(create, params)
    shardings = jax.tree.map(lambda _: sharding.replicated(mesh), shapes)
    state = jax.jit(create, out_shardings=shardings)(params)
    del params
    jax.block_until_ready(state)
    memory.give_back()
    train = step.make_train_step(
        model,
        tx,
        trainable=trainable,
        loss=losses.Loss(),
        mesh=mesh,
        state_shardings=shardings,
    )
    key, seen = jax.random.key(1), []

    def once():
        nonlocal state
        state, scalars = train(state, next(stream), key)
        return scalars["loss"]

    def finish(results):
        jax.block_until_ready(state.params)
        if not seen:
            memory.give_back()  # After the first step, as in training.
        seen.extend(map(float, results))
        return seen[:COMPARED]

    return unit(once, finish)


def theirs(case: Case, path: str, compiled: bool = False):
    """PyTorch's side: channels last, autocast for bfloat16.

    Args:
        case: what to do.
        path: of the parameters.
        compiled: by ``torch.compile``, else eager.
    """
    import torch

    from benchmarks import peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    forbid_tf32(case.dtype)
    torch.backends.cudnn.benchmark = True
    network = peer.FCN8s(case.num_classes, case.geometry)
    network.load_jax(read_parameters(path))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network = network.to(device, memory_format=torch.channels_last)
    data = case.data()
    images = torch.tensor(data["image"]).permute(0, 3, 1, 2).to(device)
    labels = torch.tensor(data["label"].astype(np.int64), device=device)
    normalise = peer.normaliser(case.model(), device)
    autocast = functools.partial(
        torch.autocast,
        device,
        dtype=torch.bfloat16,
        enabled=case.dtype == "bfloat16",
    )

    def forward():
        x = normalise(images).contiguous(memory_format=torch.channels_last)
        with autocast():
            return network(x)

    if case.work == "infer":

        def infer():
            logits = forward().float()
            return logits.argmax(1).to(torch.uint8), logits.amax(1).mean()

        network.eval()
        infer = torch.compile(infer) if compiled else infer

        def infer_once():
            with torch.inference_mode():
                return infer()

        def last(results):
            classes, score = results[-1]
            return classes.cpu().numpy(), score.item()

        return unit(infer_once, last)

    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained,
        SGD["learning_rate"],
        SGD["momentum"],
        weight_decay=SGD["weight_decay"],
        fused=device == "cuda" or None,
    )

    def loss_of():
        return torch.nn.functional.cross_entropy(
            forward().float(), labels, ignore_index=255
        )

    loss_of = torch.compile(loss_of) if compiled else loss_of

    seen = []

    def train():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def finish(results):
        if device == "cuda":
            torch.cuda.synchronize()
        seen.extend(loss.item() for loss in results)
        return seen[:COMPARED]

    return unit(train, finish)


def steps() -> int:
    """That a unit of work has after the first: on accelerators, they take moments."""
    return 1 if jax.default_backend() == "cpu" else 20


def unit(once: Callable[[], Any], finish: Callable[[list], Any]) -> Callable[[], Any]:
    """A unit of work: steps that are started one after the other and waited for once.

    Args:
        once: starts a step.
        finish: waits for the steps, of which it gets what ``once`` returned.
    """
    count = 1  # The first step compiles, and is timed alone.

    def work():
        nonlocal count
        results = [once() for _ in range(count)]
        count = steps()
        return finish(results)

    return work


def matrix_products(library: str, dtype: str):
    """Side that multiplies square matrices; see ``matrix_flops``."""
    n, count = matrix_size()
    if library == "jax":
        forbid_tf32(dtype)
        # Of norm 1, so that many products neither vanish nor overflow.
        a = (jax.random.normal(jax.random.key(0), (n, n)) / n**0.5).astype(dtype)

        @jax.jit
        def power(a):
            return jax.lax.fori_loop(0, count, lambda _, x: x @ a, a)

        return lambda: power(a)[0, 0].item()
    import torch

    forbid_tf32(dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = (torch.randn(n, n, device=device) / n**0.5).to(getattr(torch, dtype))

    def work():
        x = a
        for _ in range(count):
            x = x @ a
        return x[0, 0].item()

    return work


def matrix_size() -> tuple[int, int]:
    """Of the matrices of ``matrix_products``, and how many products a unit of work is.

    On a GPU so many that starting them and waiting for them is a small part.
    """
    return (2048, 1) if jax.default_backend() == "cpu" else (8192, 32)


def matrix_flops() -> float:
    """Of a unit of work of ``matrix_products``."""
    n, count = matrix_size()
    return 2.0 * count * n**3
