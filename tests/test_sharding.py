"""All meshes give the same results; what they split is split."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from example_runs import ROOT, score

from fcn_jax import sharding
from fcn_jax.errors import UserError


@pytest.fixture(scope="module")
def found(folder, whole):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/on_four_devices.py"), folder, whole[0]],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads((folder / "on_four_devices.pickle").read_bytes())


def assert_close(a, b):
    scale = max(np.abs(b).max(), 1e-3)
    np.testing.assert_allclose(a, b, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("mesh", ["data x fsdp", "data x spatial"])
def test_training_is_the_same_on_every_mesh(found, mesh):
    scalars, params, share = found["train"][mesh]
    plain_scalars, plain_params, plain_share = found["train"]["data"]
    for step, plain_step in zip(scalars, plain_scalars, strict=True):
        for name in ("loss", "grad_norm"):
            assert step[name] == pytest.approx(plain_step[name], rel=1e-5)
    jax.tree.map(assert_close, params, plain_params)
    assert plain_share == 1
    assert share == (1 / 2 if mesh == "data x fsdp" else 1)


@pytest.mark.parametrize("network", [("same", "bilinear"), ("caffe", "learned")])
def test_an_image_whose_rows_are_split_has_the_same_logits(found, network):
    alone, split = found["logits"][network]
    assert_close(split, alone)


def test_scores_and_masks_are_the_same_on_every_mesh(found, whole):
    # Three images: on four devices, a place is empty.
    expected, _ = score(whole[0], "train")
    masks = []
    for scores, some in found["use"].values():
        assert scores == expected
        masks.append(some)
    for a, b in zip(*masks, strict=False):
        np.testing.assert_array_equal(a, b)


def test_a_run_on_a_mixed_mesh_is_like_that_on_one_device(found, folder, whole):
    assert found["loop step"] == 6
    lines = [
        [json.loads(line) for line in (w / "metrics.jsonl").read_text().splitlines()]
        for w in (folder / "fsdp_spatial", whole[0])
    ]
    for a, b in zip(*lines, strict=True):
        if "train/loss" in a:
            assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)
    # Its checkpoint is read by this process with its one device.
    again, _ = score(folder / "fsdp_spatial")
    assert again == found["loop score"]


@pytest.mark.parametrize(
    "sizes, problem",
    [
        ((3, 1, 1), r"mesh\.data=3, .*do not multiply to the 1 device"),
        ((-1, 2, 1), r"mesh\.fsdp=2.*do not multiply to the 1 device"),
        ((-1, -1, 1), r"mesh\.fsdp=-1.*for one of them"),
        ((1, 0, 1), r"mesh\.fsdp=0.*must be 1 or more"),
    ],
)
def test_meshes_that_the_devices_do_not_make_are_refused(sizes, problem):
    with pytest.raises(UserError, match=problem):
        sharding.make_mesh(*sizes)


def test_parameters_are_split_by_their_largest_divisible_axis():
    mesh = jax.sharding.AbstractMesh((1, 4, 1), sharding.AXES)
    shapes = {
        "fc6": (7, 7, 512, 4096),
        "wide": (3, 3, 4096, 512),
        "first": (3, 3, 3, 64 * 64),
        "odd": (3, 3, 333, 333),
        "bias": (4096,),
        "step": (),
    }
    tree = {k: jax.ShapeDtypeStruct(s, "float32") for k, s in shapes.items()}
    found = {k: s.spec for k, s in sharding.of_state(mesh, tree).items()}
    assert found == {
        "fc6": jax.P(None, None, None, "fsdp"),
        "wide": jax.P(None, None, "fsdp"),
        "first": jax.P(None, None, None, "fsdp"),
        "odd": jax.P(),
        "bias": jax.P(),
        "step": jax.P(),
    }


@dataclasses.dataclass(frozen=True)
class Device:
    """As much of a device as arranging them looks at."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"
    process_index: int = 0


@pytest.mark.parametrize(
    "sizes, slices, along",
    [((4, 2, 1), 2, 0), ((8, 1, 1), 4, 0), ((1, 8, 1), 2, 1), ((1, 1, 8), 2, 2)],
)
def test_slices_lie_along_the_first_axis_that_they_can(sizes, slices, along):
    devices = [Device(i, i * slices // 8) for i in range(8)]
    arranged = sharding._arrange(sizes, devices)
    assert arranged.shape == sizes
    found = np.vectorize(lambda d: d.slice_index)(arranged)
    for i, part in enumerate(np.split(found, slices, axis=along)):
        assert (part == i).all()


def test_slices_that_a_mesh_would_cut_are_refused():
    devices = [Device(i, i // 4) for i in range(12)]
    with pytest.raises(UserError, match="2 x 2 x 2 does not .* 3 slices"):
        sharding._arrange((2, 2, 2), devices)
