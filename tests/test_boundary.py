"""Scores at boundaries, against loops over all pairs of pixels."""

import math

import numpy as np
import pytest

from fcn_jax.evaluation import boundary

VOID = 255


def blobs(seed, shape=(23, 31), classes=3, void=0.0):
    """Random regions of a few pixels, not noise, some of them void."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(classes, size=[-(-side // 4) for side in shape])
    coarse[rng.random(coarse.shape) < void] = VOID
    grown = coarse.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
    noisy = rng.random(shape) < 0.03
    return np.where(noisy, rng.integers(classes, size=shape), grown).astype(np.uint8)


def loop_boundary(ids):
    """The boundary pixels as (row, column, class)."""
    height, width = ids.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < height and 0 <= u < width
                if inside and VOID not in (ids[y, x], ids[v, u]):
                    if ids[y, x] != ids[v, u]:
                        found.add((y, x, int(ids[y, x])))
    return found


def nearest(y, x, points):
    return min((math.hypot(y - v, x - u) for v, u, _ in points), default=math.inf)


def loop_band_ious(pairs, classes, width):
    right, union = [0] * classes, [0] * classes
    for truth, prediction in pairs:
        points = loop_boundary(truth)
        for (y, x), a in np.ndenumerate(truth):
            b = prediction[y, x]
            if a == VOID or nearest(y, x, points) >= width:
                continue
            for c in {int(a), int(b)}:
                union[c] += 1
                right[c] += a == b
    return [r / u for r, u in zip(right, union, strict=True) if u]


def loop_f1(truth, prediction, c, tolerance=boundary.TOLERANCE):
    limit = tolerance * math.hypot(*truth.shape)
    hidden = np.where(truth == VOID, VOID, prediction)
    theirs = [p for p in loop_boundary(truth) if p[2] == c]
    ours = [p for p in loop_boundary(hidden) if p[2] == c]
    if not ours and not theirs:
        return None
    if not ours or not theirs:
        return 0.0
    precision = sum(nearest(y, x, theirs) <= limit for y, x, _ in ours) / len(ours)
    recall = sum(nearest(y, x, ours) <= limit for y, x, _ in theirs) / len(theirs)
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("void", [0.0, 0.3])
def test_scores_of_a_split_are_those_of_the_loops(monkeypatch, void):
    monkeypatch.setattr(boundary, "OUTLINE", 0)  # Void is left as it is.
    pairs = [(blobs(s, void=void), blobs(s + 10)) for s in range(3)]
    counter = boundary.Counter(4)  # The last class does not occur.
    for truth, prediction in pairs:
        counter.add(truth, prediction)
    found = counter.scores(["a", "b", "c", "d"])
    assert list(found["trimap_iou"]) == ["1", "2", "4", "8", "16", "32"]
    for width in (1, 2, 4, 32):
        want = mean(loop_band_ious(pairs, 3, width))
        assert found["trimap_iou"][str(width)] == pytest.approx(want, rel=1e-12)
    each = []
    for c, name in enumerate("abc"):
        f1s = [loop_f1(*pair, c) for pair in pairs]
        each.append(mean([value for value in f1s if value is not None]))
        assert found["boundary_f1_per_class"][name] == pytest.approx(each[-1])
        assert 0 < each[-1] < 1
    assert found["boundary_f1_per_class"]["d"] is None
    assert found["boundary_f1"] == pytest.approx(mean(each))


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.1])
def test_f1_by_tolerance(tolerance):
    truth, prediction = blobs(1), blobs(2)
    found = boundary.f1(truth, prediction, 3, tolerance)
    want = [loop_f1(truth, prediction, c, tolerance) for c in range(3)]
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_each_of_several_classes_is_measured_by_itself(monkeypatch):
    monkeypatch.setattr(boundary, "OUTLINE", 0)
    truth = np.stack([blobs(1, classes=2, void=0.2), blobs(2, classes=2)], -1)
    prediction = np.stack([blobs(3, classes=2), blobs(4, classes=2)], -1)
    counter = boundary.Counter(2)
    counter.add(truth, prediction)
    found = counter.scores(["a", "b"])
    for width in (1, 4, 16):
        want = []
        for i in range(2):
            points, right, union = loop_boundary(truth[..., i]), 0, 0
            for (y, x), a in np.ndenumerate(truth[..., i]):
                if a != VOID and nearest(y, x, points) < width:
                    right += bool(a and prediction[y, x, i])
                    union += bool(a or prediction[y, x, i])
            want.append(right / union)
        assert found["trimap_iou"][str(width)] == pytest.approx(mean(want))
    for i, name in enumerate("ab"):
        want = loop_f1(truth[..., i], prediction[..., i], 1)
        assert found["boundary_f1_per_class"][name] == pytest.approx(want)


def test_a_perfect_prediction_scores_one():
    truth = blobs(5, void=0.2)
    counter = boundary.Counter(3)
    counter.add(truth, np.where(truth == VOID, 1, truth).astype(np.uint8))
    found = counter.scores("abc")
    assert set(found["trimap_iou"].values()) == {1.0}
    # The boundaries in the middle of void, which the trimaps leave out, are missed.
    assert 0.3 < found["boundary_f1"] < 1
    assert boundary.f1(truth, boundary.fill_outlines(truth), 3).tolist() == [1, 1, 1]


def test_images_without_boundaries_have_no_scores():
    counter = boundary.Counter(2)
    flat = np.zeros((5, 6), np.uint8)
    counter.add(flat, flat)
    counter.add(np.full((5, 6), VOID, np.uint8), flat)
    found = counter.scores("ab")
    assert found["boundary_f1"] is None
    assert set(found["trimap_iou"].values()) == {None}
    half = flat.copy()
    half[:, 3:] = 1
    counter.add(flat, half)  # A boundary where there is none.
    assert counter.scores("ab")["boundary_f1_per_class"] == {"a": 0.0, "b": 0.0}


def test_an_outline_of_void_has_the_boundary_in_its_middle():
    truth = np.zeros((20, 40), np.uint8)
    truth[:, 20:] = 1
    outlined = truth.copy()
    outlined[:, 17:23] = VOID
    np.testing.assert_array_equal(boundary.fill_outlines(outlined), truth)
    counts = boundary.count_bands(outlined, truth, 2, widths=(3, 4, 6))
    # Columns 20 - d .. 19 + d, without those of void.
    assert counts[:, 1].tolist() == [[0, 0], [20, 20], [60, 60]]
    assert boundary.f1(outlined, truth, 2, 0.001).tolist() == [1, 1]


def test_wide_void_is_no_boundary():
    truth = np.zeros((9, 60), np.uint8)
    truth[:, 20:45] = VOID
    truth[:, 45:] = 1
    np.testing.assert_array_equal(boundary.fill_outlines(truth), truth)
    assert not boundary.boundaries(truth).any()
    assert boundary.count_bands(truth, truth % 2, 2).sum() == 0
    # What is predicted inside of it counts for nothing.
    wild = np.where(truth == VOID, blobs(1, truth.shape, classes=2), truth)
    np.testing.assert_array_equal(boundary.f1(truth, wild, 2), [np.nan, np.nan])


def test_narrow_void_takes_the_nearest_label():
    ids = blobs(7, (60, 80), void=0.4)
    ids[20:50, 10:40] = VOID
    filled = boundary.fill_outlines(ids)
    places, labels = np.argwhere(ids != VOID), ids[ids != VOID]
    void = np.argwhere(ids == VOID)
    away = {tuple(p): np.hypot(*(places - p).T) for p in void}
    deep = [p for p, distances in away.items() if distances.min() > 8]
    kept = 0
    for (y, x), distances in away.items():
        if filled[y, x] == VOID:
            kept += 1
            assert nearest(y, x, [(*p, 0) for p in deep]) <= 8
        else:
            own = distances[labels == filled[y, x]].min()
            assert own <= 1.05 * distances.min()
    assert 800 < kept <= 900 + 200 < len(void)
