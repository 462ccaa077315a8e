"""Starting from other weights: what is taken, what starts anew, what is refused."""

import dataclasses

import example_weights
import jax
import numpy as np
import pytest
import safetensors.numpy
from example_runs import tiny_config
from flax import traverse_util

from fcn_jax.errors import UserError
from fcn_jax.models import fcn, upsampling
from fcn_jax.models.weights import Weights
from fcn_jax.training import checkpoints, init_from, loop, optim, resume, setup
from fcn_jax.training import state as state_lib

TINY = {"depth": 11, "width": 0.03125, "score_init": "lecun_normal"}


def variables_of(model, seed=0):
    """Random numbers, with upsampling kernels at their start: bilinear."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda key: state_lib.init_variables(model, key), jax.random.key(0)
    )

    def value(path, x):
        if "decoder/up" in optim.name_of(path):
            return upsampling.bilinear_kernel_init(None, x.shape)
        return jax.numpy.asarray(rng.normal(size=x.shape), x.dtype)

    return jax.tree.map_with_path(value, shapes)


def state_of(model, seed=0):
    variables = variables_of(model, seed)
    return state_lib.TrainState(step=np.int32(0), opt_state=(), **variables)


def weights_of(model, seed=1, **changes):
    """All of a random network, as a file of it would be read."""
    flat = {
        kind: {
            name: np.asarray(x)
            for name, x in traverse_util.flatten_dict(tree, sep="/").items()
        }
        for kind, tree in variables_of(model, seed).items()
    }
    weights = Weights(
        description="a test's",
        depth=model.depth,
        batch_norm=model.batch_norm,
        **flat,
        mean=(1.0, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        geometry=model.geometry,
        skip_scales=None,
        unused=(),
    )
    return dataclasses.replace(weights, **changes)


def flat_params(state):
    return traverse_util.flatten_dict(state.params, sep="/")


def moved(before, after):
    """The layers whose parameters differ."""
    a, b = flat_params(before), flat_params(after)
    return {
        "/".join(name.split("/")[:2])
        for name in a
        if not np.array_equal(a[name], b[name])
    }


@pytest.mark.parametrize(("donor_stride", "stride"), [(32, 16), (16, 8)])
def test_stages_keep_what_they_share(donor_stride, stride):
    weights = weights_of(fcn.FCN(5, stride=donor_stride, **TINY))
    model = fcn.FCN(5, stride=stride, **TINY)
    result = init_from.transplant(weights, model, source="there")
    before = state_of(model)
    after = result.into(before)
    for name, value in flat_params(after).items():
        expected = weights.params.get(name, flat_params(before)[name])
        np.testing.assert_array_equal(value, expected, err_msg=name)
    new = {16: "decoder/score_pool4", 8: "decoder/score_pool3"}[stride]
    assert f"started anew  {new}\n" in result.report + "\n"
    assert "dropped" not in result.report
    assert "encoder/conv1_1 to conv5_2 (8 layers)" in result.report
    assert "decoder/score_fr" in result.report.split("started anew")[0]


def test_learned_upsampling_of_another_stride_is_dropped():
    weights = weights_of(fcn.FCN(5, stride=32, upsampling="learned", **TINY))
    model = fcn.FCN(5, stride=16, upsampling="learned", **TINY)
    report = init_from.transplant(weights, model, source="there").report
    assert "dropped       decoder/upscore" in report
    anew = "decoder/score_pool4, decoder/upscore16, decoder/upscore2"
    assert f"started anew  {anew}" in report


def test_another_class_count_starts_the_score_layers_anew():
    weights = weights_of(fcn.FCN(5, **TINY))
    model = fcn.FCN(3, **TINY)
    result = init_from.transplant(weights, model, source="there")
    before = state_of(model)
    layers = {name.split("/")[1] for name in result.reinitialized}
    assert layers == {"score_fr", "score_pool4", "score_pool3"}
    assert not any("score" in m for m in moved(before, result.into(before)))
    assert {"encoder/fc6", "encoder/conv3_1"} <= moved(before, result.into(before))


@pytest.mark.parametrize("upsampling", ["bilinear", "learned"])
def test_another_class_count_with_any_upsampling(upsampling):
    fields = TINY | {"upsampling": upsampling}
    weights = weights_of(fcn.FCN(5, **fields))
    report = init_from.transplant(weights, fcn.FCN(3, **fields), source="there").report
    loaded, anew = report.split("started anew")
    assert "decoder" not in loaded
    assert ("decoder/upscore2" in anew) == (upsampling == "learned")


def test_the_same_number_of_other_classes_starts_the_decoder_anew():
    model = fcn.FCN(3, **TINY)
    weights = weights_of(model, class_names=("ground", "house", "tree"))
    for names, same in (("ground house tree", True), ("tree ground house", False)):
        result = init_from.transplant(
            weights, model, source="there", class_names=names.split()
        )
        assert ("decoder" in result.variables["params"]) == same


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("encoder/conv1_1/kernel", (3, 3, 4, 2)),
        ("decoder/score_fr/kernel", (1, 1, 128, 4)),
        ("decoder/score_pool3/bias", (4,)),
        ("decoder/upscore8/kernel", (4, 4, 5, 5)),
        ("decoder/upscore8/kernel", (16, 16, 5, 1)),
    ],
)
def test_a_tensor_of_another_shape_is_named(name, shape):
    weights = weights_of(fcn.FCN(5, upsampling="learned", **TINY))
    weights.params[name] = np.zeros(shape, np.float32)
    for classes in (5, 3):
        with pytest.raises(UserError, match=f"there: {name} has the shape"):
            init_from.transplant(weights, fcn.FCN(classes, **TINY), source="there")


def test_preprocessing_that_is_not_the_weights_is_told():
    weights = weights_of(fcn.FCN(5, **TINY))
    fitting = {"mean": weights.mean, "std": weights.std}
    for fields, told in (({}, True), (fitting, False)):
        model = fcn.FCN(5, **TINY, **fields)
        report = init_from.transplant(weights, model, source="there").report
        assert ("model.mean and model.std say otherwise" in report) == told


def test_a_pattern_takes_the_encoder_or_its_convolutions_alone():
    weights = weights_of(fcn.FCN(5, **TINY))
    model = fcn.FCN(5, **TINY)
    for pattern, parts in (("encoder/", {"encoder"}), ("encoder/conv", {"encoder"})):
        result = init_from.transplant(weights, model, source="there", pattern=pattern)
        taken = result.variables["params"]
        assert set(taken) == parts
        assert ("fc6" in taken["encoder"]) == (pattern == "encoder/")


def test_numbers_that_are_not_finite_stop_unless_they_are_left_out():
    model = fcn.FCN(5, **TINY)
    weights = weights_of(model)
    weights.params["encoder/fc6/kernel"] = np.full_like(
        weights.params["encoder/fc6/kernel"], np.nan
    )
    with pytest.raises(UserError, match="encoder/fc6/kernel holds NaN.*init_params="):
        init_from.transplant(weights, model, source="there")
    pattern = "encoder/(conv|bn)|decoder/"
    result = init_from.transplant(weights, model, source="there", pattern=pattern)
    assert {n.split("/")[1] for n in result.reinitialized} == {"fc6", "fc7"}


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({"depth": 13}, {}, "holds a VGG-11, the network is a VGG-13"),
        ({"width": 0.0625}, {}, r"has the shape \(.*\), the network's is \("),
        ({}, {"batch_norm": True}, "model.batch_norm=True"),
        ({}, {"params": {}}, "nothing for the encoder"),
        ({}, {"skip_scales": (0.01, 0.0001)}, "set model.skip_scales="),
    ],
)
def test_another_network_is_refused(fields, changes, message):
    weights = weights_of(fcn.FCN(5, **TINY), **changes)
    with pytest.raises(UserError, match=f"init_from=there.*{message}"):
        init_from.transplant(weights, fcn.FCN(5, **(TINY | fields)), source="there")


def test_learned_kernels_do_not_pass_for_frozen_ones():
    weights = weights_of(fcn.FCN(5, upsampling="learned", **TINY))
    frozen = fcn.FCN(5, **TINY)
    init_from.transplant(weights, frozen, source="there")  # Still the bilinear ones.
    weights.params["decoder/upscore2/kernel"] = (
        weights.params["decoder/upscore2/kernel"] * 1.01
    )
    with pytest.raises(UserError, match="upscore2 is not the bilinear one"):
        init_from.transplant(weights, frozen, source="there")


def test_another_geometry_is_told():
    weights = weights_of(fcn.FCN(5, geometry="caffe", **TINY))
    for geometry in ("same", "caffe"):
        model = fcn.FCN(5, geometry=geometry, **TINY)
        report = init_from.transplant(weights, model, source="there").report
        assert ("geometry='caffe', this network" in report) == (geometry == "same")


def test_the_best_checkpoint_need_not_be_the_latest(folder, whole, tmp_path):
    _, state = whole
    config = tiny_config(folder)
    metadata = checkpoints.metadata(
        config, "abc", [[0] * 3] * 256, mean=(1,) * 3, std=(1,) * 3, trained_on=["x/y"]
    )
    with checkpoints.open_folder(tmp_path, write=True) as checkpointer:
        for step, mean_iou in ((1, 0.1), (2, 0.9), (3, 0.2)):
            params = jax.tree.map(lambda x, n=step: x * 0 + n, state.params)
            state = state.replace(step=jax.numpy.int32(step), params=params)
            checkpoints.save(checkpointer, state, mean_iou=mean_iou, metadata=metadata)
            checkpointer.wait()
    for path, step in ((tmp_path, 2), (tmp_path / "checkpoints/3", 3)):
        weights = read(path)
        assert (weights.params["encoder/fc6/kernel"] == step).all()
        assert weights.class_names == ("a", "b", "c")
        assert weights.trained_on == ("x/y",)


def read(path):
    return init_from.read(str(path), cache="", preprocessing="")


def test_a_workdir_stands_for_its_best_checkpoint(folder, whole):
    workdir, _ = whole
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        best = checkpoints.find_step(checkpointer, "best")
    for path in (workdir, workdir / "checkpoints" / str(best)):
        weights = read(path)
        variables, _ = checkpoints.read_folder(workdir / "checkpoints" / str(best))
        expected = traverse_util.flatten_dict(variables["params"], sep="/")
        assert weights.params.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(weights.params[name], value)
        assert weights.batch_norm and weights.depth == 11


def test_a_folder_that_is_no_run_is_named(folder, whole, tmp_path):
    with pytest.raises(UserError, match="is no workdir, and no whole checkpoint"):
        read(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"init_from={tmp_path} holds no checkpoint"):
        read(tmp_path)


def test_the_decoder_alone_trains_on_a_frozen_encoder(folder, whole):
    """The second of two phases: not one bit of the encoder moves."""
    workdir = folder / "second_phase"
    config = tiny_config(folder, init_from=str(whole[0]), trainable="decoder/")
    state = loop.train_and_evaluate(config, workdir)
    start = read(whole[0])
    assert int(state.step) == 6
    assert read(workdir).trained_on == start.trained_on == ("folder/train",)
    params = flat_params(state)
    for name, value in start.params.items():
        same = np.array_equal(params[name], value)
        assert same == name.startswith("encoder/"), name
    stats = traverse_util.flatten_dict(state.batch_stats, sep="/")
    assert stats.keys() == start.batch_stats.keys() and stats
    for name, value in start.batch_stats.items():
        np.testing.assert_array_equal(stats[name], value)
    # No momentum of the encoder exists that could move.
    paths = jax.tree.leaves_with_path(state.opt_state)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    assert any("decoder" in n for n in names)
    assert not any("encoder" in n for n in names)


def test_mean_and_std_of_the_weights_go_with_the_run(folder, whole, monkeypatch):
    donor = dataclasses.replace(read(whole[0]), mean=(9.0, 8.0, 7.0), std=(2.0,) * 3)
    monkeypatch.setattr(init_from, "read", lambda *args, **kwargs: donor)
    workdir = folder / "preprocessing"
    config = tiny_config(folder, init_from="there", num_steps=3)
    loop.train_and_evaluate(config, workdir)
    _, saved = resume.find(workdir, "latest")
    assert (saved["mean"], saved["std"]) == ([9.0, 8.0, 7.0], [2.0] * 3)
    # Resumed without the weights, which may be gone.
    monkeypatch.setattr(init_from, "read", None)
    loop.train_and_evaluate(config, workdir)


def test_mean_and_std_set_by_hand_count(folder, whole):
    weights, config = read(whole[0]), tiny_config(folder)
    assert setup.make_model(config, 3, mean=weights.mean).mean == weights.mean
    config.model.mean = (1.0, 1.0, 1.0)
    mean, std = setup.preprocessing(None, weights, None)
    model = setup.make_model(config, 3, mean=mean, std=std)
    assert (model.mean, model.std) == ((1.0, 1.0, 1.0), weights.std)


def test_a_damaged_file_leaves_no_workdir(folder, tmp_path):
    path = tmp_path / "vgg11.safetensors"
    layers = example_weights.vgg(11, width=1 / 32, batch_norm=True)
    safetensors.numpy.save_file(example_weights.torchvision(layers), path)
    whole = path.read_bytes()
    config = tiny_config(folder, init_from=str(path), num_steps=3)
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="vgg11.safetensors is damaged"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    path.write_bytes(whole)
    state = loop.train_and_evaluate(config, tmp_path / "run")
    assert int(state.step) == 3
    _, saved = resume.find(tmp_path / "run", "latest")
    assert saved["mean"] == pytest.approx([123.675, 116.28, 103.53])
