"""Every term of the loss against loops over pixels in NumPy, for both tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.errors import UserError
from fcn_jax.training import losses

GAMMA, FRACTION = 1.5, 0.3


def make_example(multilabel, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 5, 3)).astype(np.float32) * 3
    shape = logits.shape if multilabel else logits.shape[:-1]
    labels = rng.choice([0, 1, 255] if multilabel else [0, 1, 2, 255], shape)
    labels[2] = 255  # An image without labels.
    return logits, labels.astype(np.uint8)


def pairs(logits, labels, weights, smoothing, multilabel):
    """For each labelled pixel: image, -log p(truth), smoothed loss, weight."""
    for place in np.ndindex(labels.shape):
        y = labels[place]
        if y == 255:
            continue
        z = logits[place].astype(float)
        if multilabel:
            p = np.array([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))])
            weight = weights[place[-1]] if weights and y == 1 else 1.0
        else:
            p = np.exp(z) / np.exp(z).sum()
            weight = weights[y] if weights else 1.0
        target = (1 - smoothing) * np.eye(len(p))[y] + smoothing / len(p)
        yield place[0], -np.log(p[y]), -(target * np.log(p)).sum(), weight


def dice(logits, labels, multilabel):
    total = count = 0
    for z, y in zip(logits.astype(float), labels, strict=True):
        if (y == 255).all():
            continue
        each = []
        for c in range(z.shape[-1]):
            if multilabel:
                p, truth, valid = 1 / (1 + np.exp(-z[..., c])), y[..., c], y[..., c]
                truth = truth == 1
            else:
                p = np.exp(z[..., c]) / np.exp(z).sum(-1)
                truth, valid = y == c, y
            valid = valid != 255
            both = (p * truth)[valid].sum()
            either = p[valid].sum() + truth[valid].sum()
            each.append(1 - (2 * both + 1) / (either + 1))
        total, count = total + np.mean(each), count + 1
    return total, count


def expected_terms(logits, labels, weights, smoothing, multilabel):
    found = list(pairs(logits, labels, weights, smoothing, multilabel))
    weight = sum(w for *_, w in found)
    hardest, kept = 0.0, 0
    for b in range(len(labels)):
        nll = sorted((n for image, n, *_ in found if image == b), reverse=True)
        k = int(np.ceil(FRACTION * len(nll)))
        hardest, kept = hardest + sum(nll[:k]), kept + k
    return {
        "cross_entropy": (sum(s * w for _, _, s, w in found), weight),
        "focal": (
            sum((1 - np.exp(-n)) ** GAMMA * n * w for _, n, _, w in found),
            weight,
        ),
        "dice": dice(logits, labels, multilabel),
        "ohem": (hardest, kept),
    }


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (1.0, 0.5, 3.0)])
def test_every_term_equals_a_loop(multilabel, weights, smoothing):
    logits, labels = make_example(multilabel)
    loss = losses.Loss(
        multilabel=multilabel,
        weights=dict.fromkeys(losses.TERMS, 1.0),
        class_weights=weights and np.array(weights),
        label_smoothing=smoothing,
        focal_gamma=GAMMA,
        ohem_fraction=FRACTION,
    )
    sums = jax.jit(loss.sums)(logits, labels)
    divisors = jax.jit(loss.divisors)(labels)
    expected = expected_terms(logits, labels, weights, smoothing, multilabel)
    for name in losses.TERMS:
        actual = sums[name], divisors[name]
        np.testing.assert_allclose(actual, expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("term", losses.TERMS)
def test_the_gradient_is_that_of_finite_differences(multilabel, term):
    logits, labels = make_example(multilabel)
    loss = losses.Loss(multilabel=multilabel, weights={term: 1.0})

    def total(z):
        return loss.sums(z, labels)[term]

    gradient = jax.grad(total)(jnp.asarray(logits))
    assert not np.asarray(gradient)[labels == 255].any()
    direction = np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)
    step = 3e-3 * direction
    change = (total(logits + step) - total(logits - step)) / 6e-3
    rounding = 1e-3 * np.linalg.norm(gradient)
    np.testing.assert_allclose((gradient * direction).sum(), change, atol=rounding)


def test_focal_with_gamma_0_is_cross_entropy_and_ohem_of_all_is_its_mean():
    logits, labels = make_example(False)
    loss = losses.Loss(
        weights=dict.fromkeys(losses.TERMS, 1.0), focal_gamma=0.0, ohem_fraction=1.0
    )
    sums, divisors = loss.sums(logits, labels), loss.divisors(labels)
    for name in ("focal", "ohem"):
        np.testing.assert_allclose(sums[name], sums["cross_entropy"], rtol=1e-5)
        assert divisors[name] == divisors["cross_entropy"]


def test_ohem_shares_the_gradient_between_pixels_that_are_equally_hard():
    labels = np.zeros((1, 2, 4), np.uint8)
    loss = losses.Loss(weights={"ohem": 1.0}, ohem_fraction=0.25)
    logits = jnp.zeros((1, 2, 4, 2))  # As of a network whose scores start at zero.
    gradient = jax.grad(lambda z: loss.sums(z, labels)["ohem"])(logits)
    np.testing.assert_allclose(gradient[..., 0], np.full((1, 2, 4), -0.5 * 2 / 8))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_finite_gradient_where_all_is_right(gamma):
    loss = losses.Loss(weights={"focal": 1.0}, focal_gamma=gamma)
    logits = jnp.array([[[[100.0, -100.0]]]])
    gradient = jax.grad(lambda z: loss.sums(z, np.zeros((1, 1, 1)))["focal"])(logits)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": {"cross_entropy": 0.0}}, "weights of the loss are"),
        ({"weights": {"cross_entropy": 2.0, "dice": -1.0}}, "none may be negative"),
        ({"focal_gamma": -1.0}, "loss.focal_gamma=-1.0"),
        ({"ohem_fraction": 0.0}, "loss.ohem_fraction=0.0"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing=1.0"),
    ],
)
def test_a_loss_that_cannot_be_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        losses.Loss(**fields)
