"""The report as a file: what it says, and that nothing of a person's text is code."""

import base64
import html.parser
import importlib.util
import io
import json
import re

import example_reports
import example_runs
import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import UserError
from fcn_jax.evaluation import collector, score, trained
from fcn_jax.reporting import report, report_pictures

for name in ("jinja2", "matplotlib"):
    pytest.importorskip(name)


class Page(html.parser.HTMLParser):
    """Gathers the elements, the cells of tables and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self._stack = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data):
        if {"script", "style"} & set(self._stack):
            return
        self.text += data
        if {"td", "th"} & set(self._stack):
            self.rows[-1][-1] += data.strip()

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, first):
        return next(row for row in self.rows if row[0] == first)


@pytest.fixture(scope="module")
def page():
    return Page(report.render(example_reports.make()))


def test_the_tables_have_the_scores(page):
    content = example_reports.make()
    counts, scores = content.counts, content.scores
    for i, name in enumerate(content.class_names[:-1]):
        iou, accuracy, precision, f1, pixels, share = page.row(name)[1:]
        right, total = counts[i, i], counts[i].sum()
        union = total + counts[:, i].sum() - right
        assert iou == f"{100 * right / union:.1f} %"
        assert accuracy == f"{100 * right / total:.1f} %"
        assert precision == f"{100 * right / counts[:, i].sum():.1f} %"
        assert f1 == f"{100 * scores['boundary_f1_per_class'][name]:.1f} %"
        assert pixels == f"{total:,}"
        assert share == f"{100 * total / counts.sum():.1f} %"
    assert page.row("absent")[1:] == ["–", "–", "–", "–", "0", "0.0 %"]
    assert page.row("1 pixel") == [
        *("1 pixel", f"{100 * scores['trimap_iou']['1']:.1f} %")
    ]
    assert f"Mean IoU{100 * scores['mean_iou']:.1f} %" in page.text.replace("\n", "")
    # The costliest mistake is the largest count beside the diagonal.
    off = counts * (1 - np.eye(len(counts), dtype=int))
    i, j = np.unravel_index(off.argmax(), off.shape)
    names = content.class_names
    start = page.rows.index(["Truth", "taken for", "of the class", "Pixels"])
    share = f"{100 * off[i, j] / counts[i].sum():.1f} %"
    assert page.rows[start + 1] == [names[i], names[j], share, f"{off[i, j]:,}"]


def test_what_people_wrote_stays_text(page):
    assert len(page.named("script")) == 1
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert all(a["src"].startswith("data:image/") for a in page.named("img")[:-1])
    assert "src" not in page.named("img")[-1]  # Of the dialog, empty at first.
    assert example_reports.NAMES[1] in page.text
    shown = example_reports.HOSTILE.replace("\n", r"\n")
    assert shown in page.text
    assert f"Truth of {shown}" in [a.get("alt") for a in page.named("img")]
    assert "</td><script>alert(3)</script>" in page.text
    assert "run_eval.py '--workdir=<b>&'" in page.text


def test_nothing_is_asked_from_elsewhere(page):
    made = report.render(example_reports.make())
    addresses = set(re.findall(r"https?://[^/]*", made))
    assert addresses == {"http://www.w3.org"}  # Names of SVG's elements.
    links = [a.get("href", "") for _, a in page.tags]
    links += [a.get("xlink:href", "") for _, a in page.tags]
    assert all(link.startswith(("#", "data:")) for link in links if link)
    (policy,) = [a["content"] for a in page.named("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.named("a")}
    assert targets <= set(ids)


def test_the_plots_have_the_colours_of_the_page(page):
    plots = [a for a in page.named("svg") if "plot" in a["class"]]
    labels = [a["aria-label"] for a in plots]
    assert len(plots) == 6
    assert "training loss, 1 at step 0 and 0.2 at step 40" in labels
    made = report.render(example_reports.make())
    assert "currentColor" in made and "var(--accent)" in made
    assert "#010203" not in made and "#010204" not in made


def test_several_classes_a_pixel():
    names = ("rust", "$crack_1$", "<b>")
    content = example_reports.make(names, multilabel=True)
    made = Page(report.render(content))
    rows = {name: made.row(name) for name in names}
    for name, row in rows.items():
        assert row[1] == f"{100 * content.scores['iou_per_class'][name]:.1f} %"
        assert row[6] == "0.50"
    text = made.text
    assert "Thresholds" in text and "costliest" not in text
    assert "a class missed" in text
    assert "IoU of each class over threshold" in [
        a.get("aria-label") for a in made.named("svg")
    ]


@pytest.mark.parametrize("number", [2, 21, 150])
def test_any_number_of_classes_in_any_script(number):
    # Matplotlib's own font lacks some of these letters; warnings are errors here.
    odd = ("犬", "\U0001f415", "a\nb", "x" * 300, "_hidden", "$\\frac{$", "ابن", "é")
    names = [*odd, *(f"class {i}" for i in range(number))][:number]
    made = report.render(example_reports.make(names))
    assert f"Confusion matrix of {number} classes" in made
    page = Page(made)
    for name in names:
        assert report.printable(name) in page.text


def test_pictures_stay_small(monkeypatch):
    content = example_reports.make(images=2, shape=(400, 800))
    shown = [*content.best, *content.worst]

    def sizes():
        rows = report_pictures.rows(shown, content.palette)
        data = sum(len(p.uri) for row in rows for p in row) * 3 / 4
        return {(p.width, p.height) for row in rows for p in row}, data

    found, data = sizes()
    assert found == {(640, 320)}
    monkeypatch.setattr(report_pictures, "_BUDGET", data / 1.5)
    assert sizes()[0] == {(448, 224)}
    monkeypatch.setattr(report_pictures, "_BUDGET", 1)
    assert sizes()[0] == {(224, 112)}


def test_pictures_show_input_truth_prediction_and_errors():
    content = example_reports.make(images=1)
    (row,) = report_pictures.rows(content.best, content.palette)
    assert [p.title for p in row] == ["Input", "Truth", "Prediction", "Errors"]
    shown = content.best[0]
    for picture, mask in ((row[1], shown.truth), (row[2], shown.prediction)):
        kind, data = picture.uri.split(";base64,")
        assert kind == "data:image/png"
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            found = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(found, content.palette[mask])


def test_error_maps():
    image = np.full((3, 4, 3), 100, np.uint8)
    truth = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    prediction = np.array([[0, 1, 1, 1]] * 3, np.uint8)
    found = report_pictures.error_map(image, truth, prediction)
    assert (found[:, :2] == 100).all()  # Grey: 70 and three tenths of 100.
    assert (found[:, 2] == (240, 90, 10)).all()
    assert {tuple(p) for p in found[:, 3].tolist()} <= {(150,) * 3, (90,) * 3}
    many = np.array([[[0, 0], [1, 0], [1, 255], [255, 255]]], np.uint8)
    guess = np.array([[[0, 1], [0, 1], [0, 1], [1, 1]]], np.uint8)
    (row,) = report_pictures.error_map(image[:1], many, guess).tolist()
    assert row[:3] == [[240, 90, 10], [190, 30, 190], [0, 114, 240]]
    assert row[3] in ([150] * 3, [90] * 3)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_best_and_the_worst_are_kept(multilabel):
    kept = collector.Collector(3, multilabel=multilabel, keep=2)
    scores = {}
    for i in range(9):
        truth, prediction = example_reports.pair(i, 3, multilabel=multilabel)
        image = np.zeros((*truth.shape[:2], 3), np.uint8)
        kept.visit(i, example_reports.record(f"{i}", image, truth), prediction)
        ious = []
        for c in range(3):
            if multilabel:
                truth_c, found = truth[..., c] == 1, prediction[..., c] == 1
                found &= truth[..., c] != IGNORE
            else:
                truth_c = truth == c
                found = (prediction == c) & (truth != IGNORE)
            if (truth_c | found).any():
                ious.append((truth_c & found).sum() / (truth_c | found).sum())
        scores[f"{i}"] = np.mean(ious)
    void = np.full((4, 5, 3)[: 2 + multilabel], IGNORE, np.uint8)
    image = np.zeros((4, 5, 3), np.uint8)
    kept.visit(9, example_reports.record("void", image, void), void * 0)
    assert kept.mean_ious == pytest.approx(list(scores.values()))
    order = sorted(scores, key=scores.get)
    assert [shown.name for shown in kept.worst()] == order[:2]
    assert [shown.name for shown in kept.best()] == order[:-3:-1]
    assert kept.best()[0].mean_iou == pytest.approx(scores[order[-1]])


def test_no_image_is_both_good_and_bad():
    for images in (1, 2, 3):
        content = example_reports.make(images=images)
        names = [shown.name for shown in (*content.best, *content.worst)]
        assert len(names) == len(set(names)) == images
        assert content.best[0].mean_iou == max(content.mean_ious)


def test_the_report_of_a_run(whole, tmp_path):
    workdir, _ = whole
    run = trained.load(workdir, "latest")
    plain, _ = score.evaluate_run(run, "val", tmp_path)
    scores, path = score.evaluate_run(run, "val", tmp_path, report=True)
    assert scores.items() >= plain.items()
    assert json.loads(path.read_text()) == scores
    assert set(scores["trimap_iou"]) == {"1", "2", "4", "8", "16", "32"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "report.html"]
    page = Page((tmp_path / "report.html").read_text())
    for name, iou in scores["iou_per_class"].items():
        assert page.row(name)[1] == report.percent(iou)
    assert page.row("optimizer.learning_rate")[1] == "0.003"
    for words in ("Trained on", "fcn-jax 0.1.0", "split val of 2 images", "1 x cpu"):
        assert words in page.text, words


def test_a_log_is_read_as_far_as_it_is_whole(tmp_path):
    assert report.read_metrics(tmp_path) == []
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": null}\n[]\n{"step": 2, "tra')
    assert report.read_metrics(tmp_path) == [{"step": 1, "train/loss": None}]
    made = report.render(example_reports.make(metrics=report.read_metrics(tmp_path)))
    assert "training loss" not in made and "There are no curves" in made


def test_a_report_is_whole_or_absent(tmp_path):
    path = tmp_path / "a b" / "report.html"
    path.parent.mkdir()
    path.write_text("before")
    (tmp_path / "a b" / "report.html.part").mkdir()
    with pytest.raises(OSError):
        report.write(path, example_reports.make(images=1))
    assert path.read_text() == "before"
    (tmp_path / "a b" / "report.html.part").rmdir()
    report.write(path, example_reports.make(images=1))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_missing_libraries_are_told_before_anything_is_loaded(monkeypatch):
    report.require_libraries()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: name != "jinja2" and find(name) or None,
    )
    with pytest.raises(UserError, match=r"needs jinja2, .* '\.\[report\]'$"):
        report.require_libraries()


def test_the_command(whole, tmp_path):
    workdir, _ = whole
    found = example_runs.run("run_eval.py", f"--workdir={workdir}", "--report")
    assert found.returncode == 0, found.stderr
    path = workdir / "report.html"
    assert f"and {path}." in found.stdout
    page = Page(path.read_text())
    path.unlink()
    assert f"run_eval.py --workdir={workdir} --report" in page.text
    assert str(example_runs.ROOT) not in page.text
    assert "step 6" in " ".join(a.get("aria-label", "") for a in page.named("svg"))
