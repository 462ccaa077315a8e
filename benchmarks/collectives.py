r"""Which collectives a compiled step runs, and how many bytes they move.

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python benchmarks/collectives.py \
    [--config=CONFIG] [--size=512] [--batch=8] [--width=1.0] [--steps=train,predict] \
    [--meshes=8x1x1,2x4x1,1x8x1,2x1x4,1x1x4,1x1x8] [--topology=v5e:2x4] [--top=5]

The step is lowered for shapes and compiled, nothing is computed, so it needs no memory
of a device. Without --topology it is compiled for the CPU; its bfloat16 collectives
are float32 ones there, and it makes no reduce-scatters. With it, for the TPU of that
name: libtpu must be installed (the extra `tpu`), a TPU is not needed.

MB are 10^6 bytes. result: of the arrays that come out, on one device. links: what each
device sends, by a ring algorithm.
"""

import argparse
import collections
import dataclasses
import functools
import math
import re
import runpy
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np
from jax.experimental import topologies

from fcn_jax import sharding
from fcn_jax.evaluation import evaluate, tasks
from fcn_jax.training import optim, setup
from fcn_jax.training import state as state_lib
from fcn_jax.training import step as step_lib

NUM_CLASSES = 21
KINDS = "all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all"

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(
    rf'^\s+(?:ROOT )?%?[\w.\-]+ = ([^"]*?) ({"|".join(KINDS)})(-start)?\('
)
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|\w+_computations?)=(\S+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction; the sizes are those of one device."""

    kind: str  # One of KINDS.
    shapes: tuple[str, ...]  # Of the results, e.g. f32[3,3,64,64].
    bytes: int  # Of all results, once.
    group_size: int  # Devices that take part together; 2 if one sends to another.
    times: int  # It runs in one call of the program: more than once in a loop.
    name: str  # The operation that it comes from, "" if unknown.

    @property
    def link_bytes(self) -> int:
        """Bytes that each device sends in one call of the program, along a ring."""
        n = self.group_size
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "reduce-scatter": n - 1,  # The result is an n-th of what is reduced.
            "collective-permute": 1,
            "all-to-all": (n - 1) / n,
        }
        return round(self.times * self.bytes * share[self.kind])


def collectives(hlo_text: str) -> list[Collective]:
    """Lists the collectives of a compiled program.

    Args:
        hlo_text: ``compiled.as_text()``.

    Returns:
        One entry an instruction, in the order of the text; an asynchronous pair is
        one. All branches of a conditional count, and loops of unknown length once.
    """
    computations = _computations(hlo_text)
    header = re.search(r"num_partitions=(\d+)", hlo_text)
    everyone = int(header.group(1)) if header else 1
    found, channels = [], set()
    for name, (times, lines) in computations.items():
        for line in lines:
            if not (match := _COLLECTIVE.match(line)) or not times:
                continue
            # A TPU spreads one collective over many fusions, to run beside them.
            channel = re.search(r"channel_id=\d+", line)
            key = channel and (channel.group(), match.group(2))
            if key in channels:
                continue
            channels.update({key} - {None})
            found.append(_read(line, match, name, times, everyone))
    return found


def _computations(hlo_text: str) -> dict[str, tuple[int, list[str]]]:
    """The program's functions by name: how often each runs, and its lines."""
    bodies, entry, name = {}, None, None
    for line in hlo_text.splitlines():
        if head := _HEAD.match(line):
            name = head.group(2)
            bodies[name] = []
            entry = name if head.group(1) else entry
        elif line.startswith("}"):
            name = None
        elif name is not None:
            bodies[name].append(line)
    times = collections.Counter({entry: 1})
    # Callers stand after what they call.
    for name in reversed(bodies):
        for line in bodies[name]:
            if re.search(r"[\w)\]}] [\w\-]+-(done|update)\(", line):
                continue  # Its start has called the same.
            trips = int(m.group(1)) if (m := _TRIPS.search(line)) else 1
            for called in _CALLED.findall(line.split(", metadata=")[0]):
                for callee in re.findall(r"[\w.\-]+", called):
                    times[callee] += times[name] * trips
    return {name: (times[name], lines) for name, lines in bodies.items()}


def _read(line, match, computation, times, everyone) -> Collective:
    """Reads one instruction."""
    shape, kind, start = match.groups()
    if start and kind != "all-reduce":
        shape = _elements(shape)[1]  # Operands, results, and what the pair passes on.
    shapes = _SHAPE.findall(re.sub(r"\{[^}]*\}|/\*.*?\*/", "", shape))
    size = math.ceil(sum(_bytes(*s) for s in shapes))
    group = _group_size(line, everyone)
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        # A TPU's way to say it: the slice of the sum that follows is fused with it.
        kind, size = "reduce-scatter", size // group
        shapes = [(t, f"{n} / {group}") for t, n in shapes]
    shapes = tuple(f"{t}[{n}]" for t, n in shapes)
    name = m.group(1) if (m := _OP_NAME.search(line)) else ""
    return Collective(kind, shapes, size, group, times, name)


def _elements(shape: str) -> list[str]:
    """Splits ``(a, (b, c))`` at its outer commas."""
    parts, depth = [""], 0
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _bytes(dtype, dimensions) -> float:
    digits = re.search(r"\d+", dtype)
    bits = int(digits.group()) if digits else 8 * (dtype == "pred")
    return math.prod(int(n) for n in dimensions.split(",") if n) * bits / 8


def _group_size(line, everyone) -> int:
    if "source_target_pairs=" in line:
        return 2
    if m := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return m.group(1).count(",") + 1
    if m := re.search(r"replica_groups=\[([\d,]+)\]<=", line):
        return int(m.group(1).split(",")[-1])
    if m := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", m.group(1)))
        # Whole axes, or parts: 'a':(1)2 is two devices of its.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", m.group(2))
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return everyone


def lower(
    kind: str,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    size: Sequence[int],
    batch_size: int,
) -> jax.stages.Lowered:
    """Lowers the step that ``loop.py`` or ``evaluate.py`` runs, from shapes alone.

    Args:
        kind: ``train`` or ``predict``.
        config: of the run.
        mesh: of real devices or of a topology's.
        size: height and width of the images.
        batch_size: of all devices together.
    """
    model = setup.make_model(config, NUM_CLASSES)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(functools.partial(state_lib.init_variables, model), key)
    trainable = optim.trainable_mask(shapes["params"], config.trainable)
    _, tx = setup.make_optimizer(config, trainable)
    state = jax.eval_shape(functools.partial(state_lib.create, model, tx), key)
    state = jax.tree.map(_placed, state, at := sharding.of_state(mesh, state))
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *size, 3), np.uint8),
        "size": jax.ShapeDtypeStruct((batch_size, 2), np.int32),
        "label": jax.ShapeDtypeStruct((batch_size, *size), np.uint8),
    }
    batch = {k: _placed(x, sharding.of_batch(mesh, x.ndim)) for k, x in batch.items()}
    if kind == "train":
        step = step_lib.make_train_step(
            model,
            tx,
            trainable=trainable,
            loss=setup.make_loss(config),
            reduction=config.loss.reduction,
            accumulation_steps=config.accumulation_steps,
            mesh=mesh,
            state_shardings=at,
        )
        return step.lower(state, batch, _placed(key, sharding.replicated(mesh)))

    task = tasks.make(config.task, NUM_CLASSES)

    def predict(variables, batch):
        whole, image = sharding.whole(variables, mesh), batch["image"]
        scores = evaluate.logits(model, whole, image, batch["size"], None, size)
        return task.count(batch["label"], scores), task.classify(scores)

    out = sharding.replicated(mesh), sharding.of_batch(mesh, 3)
    return jax.jit(predict, out_shardings=out).lower(state.variables, batch)


def _placed(x, at) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)


def meshes(names: str, topology: str) -> Iterator[jax.sharding.Mesh]:
    """Meshes of ``DATAxFSDPxSPATIAL``, each of as many of the devices as it takes."""
    devices = jax.devices()
    if topology:
        devices = topologies.get_topology_desc(topology, "tpu").devices
    for name in names.split(","):
        sizes = tuple(int(n) for n in name.split("x"))
        types = (jax.sharding.AxisType.Auto,) * len(sizes)
        chosen = np.asarray(devices[: math.prod(sizes)]).reshape(sizes)
        yield jax.sharding.Mesh(chosen, sharding.AXES, axis_types=types)


def report(compiled: jax.stages.Compiled, top: int) -> Iterator[str]:
    """The lines of one compiled step's table."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    yield (
        f"per device: {cost.get('flops', 0) / 1e9:,.0f} GFLOP by XLA's count; "
        f"GiB of arguments {memory.argument_size_in_bytes / 2**30:.2f}, "
        f"temporaries {memory.temp_size_in_bytes / 2**30:.2f}"
    )
    groups = collections.defaultdict(list)
    for c in (found := collectives(compiled.as_text())):
        groups[c.kind, c.group_size].append(c)
    yield f"  {'kind':<20}{'devices':>8}{'number':>8}{'result MB':>12}{'links MB':>12}"
    for (kind, size), members in sorted(groups.items()):
        number = sum(c.times for c in members)
        result = sum(c.times * c.bytes for c in members) / 1e6
        links = sum(c.link_bytes for c in members) / 1e6
        yield f"  {kind:<20}{size:>8}{number:>8}{result:>12,.2f}{links:>12,.2f}"
    for c in sorted(found, key=lambda c: -c.link_bytes)[:top]:
        shapes = " ".join(c.shapes[:3]) + (" ..." if len(c.shapes) > 3 else "")
        name = c.name if len(c.name) < 80 else f"{c.name[:40]} ... {c.name[-40:]}"
        yield f"    {c.link_bytes / 1e6:>9,.2f} MB {c.kind} {shapes} {name}"


def main():
    """Prints a table for each step and mesh."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/fcn8s.py")
    parser.add_argument("--size", type=int, default=512, help="of square images")
    parser.add_argument("--batch", type=int, default=8, help="of all devices together")
    parser.add_argument("--width", type=float, help="model.width; default: config's")
    parser.add_argument("--dtype", default="bfloat16", help="model.dtype")
    parser.add_argument("--steps", default="train,predict")
    parser.add_argument("--meshes", default="8x1x1,2x4x1,1x8x1,2x1x4,1x1x4,1x1x8")
    parser.add_argument("--topology", default="", help="of a TPU, e.g. v5e:2x4")
    parser.add_argument("--top", type=int, default=5, help="largest ones to name")
    args = parser.parse_args()
    config = runpy.run_path(args.config)["get_config"]()
    config.model.dtype = args.dtype
    config.model.width = args.width or config.model.width
    print(
        f"{args.config}, width {config.model.width}, {args.batch} images of "
        f"{args.size}x{args.size} together, {args.dtype}; jax {jax.__version__}, "
        f"compiled for {args.topology or jax.devices()[0].platform}"
    )
    for kind in args.steps.split(","):
        for mesh in meshes(args.meshes, args.topology):
            began = time.perf_counter()
            step = lower(kind, config, mesh, (args.size,) * 2, args.batch).compile()
            name = " x ".join(f"{n} {s}" for n, s in mesh.shape.items())
            print(f"\n{kind}, {name}, compiled in {time.perf_counter() - began:.0f} s")
            print("\n".join(report(step, args.top)), flush=True)


if __name__ == "__main__":
    main()
