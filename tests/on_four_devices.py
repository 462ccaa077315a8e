"""What test_sharding.py wants to know, computed by a process with four devices."""

import pathlib
import pickle
import sys

import example_folders
import jax
import numpy as np
from example_runs import score, tiny_config

from fcn_jax import sharding
from fcn_jax.evaluation import predict, trained
from fcn_jax.evaluation import score as score_lib
from fcn_jax.models import fcn
from fcn_jax.training import loop, setup
from fcn_jax.training import state as state_lib

MESHES = {
    "data": (4, 1, 1),
    "data x fsdp": (2, 2, 1),
    "data x spatial": (2, 1, 2),
    "fsdp x spatial": (1, 2, 2),
}


def batch_of(rng, batch_size, height, width):
    sizes = rng.integers(1, (height, width), (batch_size, 2), endpoint=True)
    return {
        "image": rng.integers(0, 256, (batch_size, height, width, 3), np.uint8),
        "size": sizes.astype(np.int32),
        "label": rng.choice([0, 1, 2, 255], (batch_size, height, width)).astype("u1"),
    }


def train(folder, name):
    """Two steps on one batch: scalars, parameters, the largest array's share."""
    mesh = sharding.make_mesh(*MESHES[name])
    config = tiny_config(
        folder,
        optimizer__name="sgd",
        optimizer__learning_rate=0.01,
        optimizer__clip_norm=1.0,
        model__width=0.0625,
        model__batch_norm=False,  # Micro-batches have statistics of their own ...
        model__dropout=0.0,  # ... and drop other units.
        accumulation_steps=2 if name == "data x fsdp" else 1,
    )
    model = setup.make_model(config, 3)
    split = None  # Only class weights would need it.
    training = setup.make_training(config, model, split, mesh)
    init_key, step_key = sharding.random_keys(0, mesh)
    state = training.create(init_key)
    batch = batch_of(np.random.default_rng(0), 8, 64, 48)
    (batch,) = sharding.to_devices(iter([batch]), mesh, 8)
    scalars = []
    for _ in range(2):
        state, values = training.step(state, batch, step_key)
        scalars.append(jax.device_get(values))
    fc6 = state.params["encoder"]["fc6"]["kernel"]
    share = fc6.addressable_shards[0].data.size / fc6.size
    return scalars, jax.device_get(state.params), share


def logits(geometry, upsampling):
    """Of one image, alone on one device, and with its rows on four."""
    mesh = sharding.make_mesh(1, 1, 4)
    model = fcn.create(
        3, width=0.03125, geometry=geometry, upsampling=upsampling,
        score_init="lecun_normal", dtype="float32",
    )  # fmt: skip
    variables = state_lib.init_variables(model, jax.random.key(1))
    image = np.random.default_rng(1).integers(0, 256, (1, 84, 70, 3), np.uint8)
    size = np.array([[83, 67]], np.int32)
    alone = jax.jit(model.apply)(variables, image, size)
    args = sharding.put(
        (image, size), (sharding.of_batch(mesh, 4), sharding.of_batch(mesh, 2))
    )
    apply = jax.jit(model.apply, out_shardings=sharding.of_batch(mesh, 4))
    split = apply(variables, *args)
    assert {s.data.shape[1] for s in split.addressable_shards} == {21}
    return np.asarray(alone)[:, :83, :67], np.asarray(split)[:, :83, :67]


def use(folder, workdir, name):
    """A trained network's scores of a split, and its masks of some images."""
    run = trained.load(workdir, "latest", sharding.make_mesh(*MESHES[name]))
    scores, _ = score_lib.evaluate_run(run, "train", folder / "scores")
    images = [example_folders.pixels(stem)[0] for stem in "abc"]
    predictor = predict.Predictor(run)
    return scores, predictor(images[: predictor.batch_size])


def main(folder, workdir):
    changed = loop.train_and_evaluate(
        tiny_config(folder, mesh__fsdp=2, mesh__spatial=2), folder / "fsdp_spatial"
    )
    found = {
        "train": {n: train(folder, n) for n in MESHES if n != "fsdp x spatial"},
        "logits": {
            network: logits(*network)
            for network in (("same", "bilinear"), ("caffe", "learned"))
        },
        "use": {n: use(folder, workdir, n) for n in ("data", "fsdp x spatial")},
        "loop step": int(changed.step),
        "loop score": score(folder / "fsdp_spatial")[0],
    }  # fmt: skip
    (folder / "on_four_devices.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
