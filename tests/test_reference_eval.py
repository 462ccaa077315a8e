"""Published weights to scores: the whole way against PyTorch and a NumPy scorer."""

import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import reference_nets  # noqa: E402  Needs PyTorch.
from example_runs import ROOT, flags, run  # noqa: E402

SIZES = {"a": (90, 120), "b": (64, 49), "c": (33, 80), "d": (17, 19), "e": (1, 40)}
WIDTH = 0.0625


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """PASCAL VOC's layout with images of mixed sizes, and seg11valid's list."""
    root = tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (h, w) in SIZES.items():
        y, x = np.mgrid[:h, :w]
        image = np.stack([3 * x + y, 2 * y, 255 - x], -1) + rng.integers(
            0, 60, (h, w, 3)
        )
        ids = rng.integers(0, 21, (-(-h // 8), -(-w // 8))).repeat(8, 0).repeat(8, 1)
        ids = ids[:h, :w].astype(np.uint8)
        ids[rng.random((h, w)) < 0.1] = 255
        Image.fromarray((image % 256).astype(np.uint8)).save(
            root / f"JPEGImages/{name}.png"
        )
        Image.fromarray(ids).save(root / f"SegmentationClass/{name}.png")
    for split, names in {
        "train": "a",
        "val": "abcde",
        "trainval": "abcde",
        "seg11valid": "abcde",
    }.items():
        text = "".join(f"{name}\n" for name in names)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(text)
    return root


def score(root, predict):
    """The reference's score.py: one histogram of all pixels, four numbers."""
    hist = np.zeros((21, 21))
    for name in SIZES:
        image = np.array(Image.open(root / f"JPEGImages/{name}.png"))
        truth = np.array(Image.open(root / f"SegmentationClass/{name}.png"))
        predicted = predict(image)
        k = (truth >= 0) & (truth < 21)
        hist += np.bincount(
            21 * truth[k].astype(int) + predicted[k], minlength=21**2
        ).reshape(21, 21)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.diag(hist) / (hist.sum(1) + hist.sum(0) - np.diag(hist))
        freq = hist.sum(1) / hist.sum()
        return {
            "pixel_accuracy": np.diag(hist).sum() / hist.sum(),
            "mean_accuracy": np.nanmean(np.diag(hist) / hist.sum(1)),
            "mean_iou": np.nanmean(iou),
            "frequency_weighted_iou": (freq[freq > 0] * iou[freq > 0]).sum(),
        }


@pytest.mark.parametrize("net", reference_nets.NETS)
def test_run_eval_gives_the_scores_of_pytorchs_predictions(net, root, tmp_path):
    weights = reference_nets.random_weights(net, WIDTH, seed=2)
    for name, tensor in weights.items():
        if name.startswith("score") and name.endswith("weight"):
            # Without the mean of ReLU's outputs, so that many classes win somewhere.
            tensor -= tensor.mean(1, keepdim=True)
    file = tmp_path / f"{net}_from_caffe.pth"
    torch.save(weights, file)

    predicted = set()

    def predict(image):
        with torch.no_grad():
            logits = reference_nets.forward(
                net, weights, reference_nets.from_rgb(image)
            )
        ids = logits[0].argmax(0).numpy()
        predicted.update(np.unique(ids))
        return ids

    expected = score(root, predict)
    config = net.replace("-", "_")
    done = run(
        "run_eval.py",
        f"--config={ROOT / f'configs/reference/voc_{config}.py'}",
        f"--workdir={tmp_path / 'run'}",
        *flags(
            {
                "init_from": file,
                "model.width": WIDTH,
                "data.source": root,
                "data.dir": root.parent / "data",
                "eval_batch_size": 2,
                "compilation_cache": "",
            }
        ),
    )
    assert done.returncode == 0, done.stderr
    assert "loaded" in done.stdout and "started anew" not in done.stdout
    (result,) = (tmp_path / "run").iterdir()
    assert result.name == f"eval_seg11valid_{net}_from_caffe.json"
    scores = json.loads(result.read_text())
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-4), name
    assert scores["num_images"] == len(SIZES)
    assert len(predicted) >= 5  # No trivial scores.


def test_run_predict_uses_published_weights_without_data(root, tmp_path):
    weights = reference_nets.random_weights("fcn16s", WIDTH, seed=3)
    file = tmp_path / "fcn16s_from_caffe.pth"
    torch.save(weights, file)
    done = run(
        "run_predict.py",
        f"--config={ROOT / 'configs/reference/voc_fcn16s.py'}",
        f"--input={root / 'JPEGImages'}",
        f"--output={tmp_path / 'masks'}",
        *flags(
            {"init_from": file, "model.width": WIDTH, "data.dir": tmp_path / "data"}
        ),
        "--config.compilation_cache=",
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "data").exists()
    for name in SIZES:
        image = np.array(Image.open(root / f"JPEGImages/{name}.png"))
        with torch.no_grad():
            logits = reference_nets.forward(
                "fcn16s", weights, reference_nets.from_rgb(image)
            )[0].numpy()
        found = np.array(Image.open(tmp_path / f"masks/{name}_mask.png"))
        differ = found != logits.argmax(0)
        # Only where two classes are as good as equal.
        first, second = np.sort(logits, 0)[[-1, -2]]
        assert (first - second)[differ].max(initial=0) < 1e-3 * np.abs(logits).max()
        assert differ.mean() < 0.01


def test_published_networks_are_not_scored_on_what_they_learned_from(root, tmp_path):
    file = tmp_path / "fcn32s_from_caffe.pth"
    torch.save(reference_nets.random_weights("fcn32s", WIDTH), file)
    settings = {
        "init_from": file,
        "model.width": WIDTH,
        "data.source": root,
        "data.dir": tmp_path / "data",
        "data.train_split": "train",  # Not what the network was trained on.
    }
    done = run(
        "run_eval.py",
        f"--config={ROOT / 'configs/reference/voc_fcn32s.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--split=val",
        *flags(settings),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "use the split seg11valid" in done.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "data").exists()
