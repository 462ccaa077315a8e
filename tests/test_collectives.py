"""What devices say to each other, read from compiled programs."""

import collections
import json
import os
import subprocess
import sys

import pytest
from example_runs import ROOT

from benchmarks import collectives as benchmark

ADD = """HloModule m, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}
"""


def program(line, body=ADD):
    return body + f"\nENTRY %main (p: f32[8]) -> f32[8] {{\n  {line}\n}}\n"


@pytest.mark.parametrize(
    "line, kind, shapes, size, group, link",
    [
        (  # One group of all, and two of four.
            "%r = f32[6]{0} all-reduce(%p), replica_groups={}, to_apply=%add",
            *("all-reduce", ("f32[6]",), 24, 8, 42),
        ),
        (
            "ROOT %r = bf16[2,4]{1,0:T(8,128)(2,1)} all-reduce(%p), "
            "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add",
            *("all-reduce", ("bf16[2,4]",), 16, 4, 24),
        ),
        (
            "%r = (f32[6]{0}, /*index=1*/pred[]) all-reduce-start(%p, %q), "
            "replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add",
            *("all-reduce", ("f32[6]", "pred[]"), 25, 2, 25),
        ),
        (  # An asynchronous result comes with its operand.
            "%r = (f32[2]{0}, f32[8]{0}) all-gather-start(%p), "
            "replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}",
            *("all-gather", ("f32[8]",), 32, 4, 24),
        ),
        (
            "%r = ((f32[8]{0}), f32[2]{0}, u32[]) reduce-scatter-start(%p), "
            "replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}, to_apply=%add",
            *("reduce-scatter", ("f32[2]",), 8, 4, 24),
        ),
        (
            "%r = u8[3,5]{1,0} collective-permute(%p), "
            "source_target_pairs={{0,1},{1,2}}",
            *("collective-permute", ("u8[3,5]",), 15, 2, 15),
        ),
        (
            "%r = (f32[4]{0}, f32[4]{0}) all-to-all(%p, %q), replica_groups={{0,1}}",
            *("all-to-all", ("f32[4]", "f32[4]"), 32, 2, 16),
        ),
    ],
)
def test_reads_every_form(line, kind, shapes, size, group, link):
    line += ', metadata={op_name="jit(step)/conv"}'
    (found,) = benchmark.collectives(program(line))
    assert (found.kind, found.shapes) == (kind, shapes)
    assert (found.bytes, found.group_size, found.link_bytes) == (size, group, link)
    assert (found.times, found.name) == (1, "jit(step)/conv")


def test_other_lines_are_none():
    done = "%d = f32[8]{0} all-gather-done((f32[2]{0}, f32[8]{0}) %r)"
    named = '%f = f32[8] fusion(%p), metadata={op_name="an all-reduce(of x)"}'
    for line in (done, named, "%c = f32[8] copy(%all-reduce.1)"):
        assert benchmark.collectives(program(line)) == []


def test_loops_and_calls_count_as_often_as_they_run():
    body = (
        ADD
        + """
%body (p: f32[8]) -> f32[8] {
  %r = f32[8]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%unused (p: f32[8]) -> f32[8] {
  %r = f32[8]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%all-reduce-scatter (p: f32[8]) -> f32[1] {
  %r = f32[8]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%wrapped (p: f32[8]) -> f32[8] {
  %r = f32[8]{0} all-gather(%p), replica_groups={{0,1}}
}
"""
    )
    lines = """%w = f32[8] while(%p), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %f = f32[1] fusion(%w), kind=kCustom, calls=%all-reduce-scatter
  %s = ((f32[8]), f32[8]) async-start(%w), calls=%wrapped
  %d = f32[8] async-done(%s), calls=%wrapped"""
    loop, scatter, gather = benchmark.collectives(program(lines, body))
    assert (loop.times, loop.link_bytes) == (5, 5 * 56)
    assert (scatter.kind, scatter.bytes, scatter.link_bytes) == (
        *("reduce-scatter", 4),
        28,
    )
    assert (gather.kind, gather.times) == ("all-gather", 1)


def test_one_collective_in_many_fusions_is_one():
    """A TPU's: pieces of it, in fusions that compute something else, too."""
    fusion = """
%fusion.{} (p: bf16[1]) -> bf16[8] {{
  %r = bf16[8]{{0}} all-gather(%p), channel_id=7, replica_groups={{}}
}}
"""
    calls = "%f = bf16[8] fusion(%p), kind=kCustom, calls=%fusion.{}"
    (found,) = benchmark.collectives(
        program(
            "\n  ".join(map(calls.format, "12")),
            ADD + "".join(map(fusion.format, "12")),
        )
    )
    assert (found.times, found.bytes, found.link_bytes) == (1, 16, 14)


COMPILED = """
import json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from example_runs import tiny_config
from fcn_jax import sharding
from fcn_jax.training import setup
from fcn_jax.training import state as state_lib
from benchmarks import collectives as c

mesh = sharding.make_mesh(data=-1)
at = lambda *axes: jax.sharding.NamedSharding(mesh, jax.P(*axes))

@jax.jit(out_shardings=at())
def toy(x, w):  # A sum over the devices, in each turn of a loop; a gathered array.
    def turn(w, _):
        return w + (x * w).sum(0), None
    return jax.lax.scan(turn, w, length=3)[0], x

toy = toy.lower(
    jax.ShapeDtypeStruct((8, 5), np.float32, sharding=at("data")),
    jax.ShapeDtypeStruct((5,), np.float32, sharding=at()),
)
config = tiny_config(pathlib.Path("/none"), model__batch_norm=False)
step = c.lower("train", config, mesh, (32, 32), 4)
shapes = jax.eval_shape(
    lambda k: state_lib.init_variables(setup.make_model(config, c.NUM_CLASSES), k),
    jax.random.key(0),
)
print(json.dumps({
    "parameters": setup.count(shapes["params"]),
    "toy": [vars(x) for x in c.collectives(toy.compile().as_text())],
    "step": [vars(x) for x in c.collectives(step.compile().as_text())],
}))
"""


@pytest.fixture(scope="module")
def compiled():
    """On four devices: this process has one."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    # As it is compiled for a user.
    env.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_compiled_function(compiled):
    runs = collections.Counter()
    for c in compiled["toy"]:
        runs[c["kind"], c["bytes"], c["group_size"]] += c["times"]
    assert runs == {("all-gather", 8 * 5 * 4, 4): 1, ("all-reduce", 5 * 4, 4): 3}


def test_data_parallel_training_only_sums_gradients(compiled):
    assert {c["kind"] for c in compiled["step"]} == {"all-reduce"}
    assert {c["group_size"] for c in compiled["step"]} == {4}
    size = sum(c["bytes"] * c["times"] for c in compiled["step"])
    # Nothing that grows with the batch: beside the gradient a few scalars.
    assert 0 <= size - 4 * compiled["parameters"] <= 64
