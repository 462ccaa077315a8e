"""The sheet of images with their masks laid over, pixel by pixel."""

import numpy as np
from example_inspections import ids_of, image_of, look, make

from fcn_jax.inspection import samples
from fcn_jax.reporting import contact_sheet


def test_contact_sheet(tmp_path):
    folder = make(tmp_path / "mine", lambda ids: np.where(ids == 2, 255, ids), "a b")
    found = look(folder)
    sheet = samples.draw(found, 2)
    assert sheet.dtype == np.uint8 and sheet.shape[1] <= 1800
    # The first image is enlarged by a whole factor, 28, and so is its mask beside it.
    first = found.splits["train"][0]
    name = found.survey.items[first].pair.name
    image, ids = image_of(name), ids_of(name)
    top, left, size = 42, 12, 28
    rows = slice(top + 14, top + 8 * size, size)
    centres = rows, slice(left + 14, left + 280, size)
    np.testing.assert_array_equal(sheet[centres], image)
    shifted = rows, slice(left + 284 + 14, left + 284 + 280, size)
    np.testing.assert_array_equal(sheet[shifted][ids == 0], image[ids == 0])
    mixed = np.rint(0.5 * image + 0.5 * np.array([128, 0, 0]))
    np.testing.assert_array_equal(sheet[shifted][ids == 1], mixed[ids == 1])
    void = sheet[top : top + 8 * size, left + 284 : left + 284 + 280]
    void = void[np.kron(ids == 2, np.ones((size, size), bool))]
    assert 0.2 < (void == 255).all(-1).mean() < 0.3


def test_every_class_is_shown():
    counted = [{0: 9}] * 20 + [{0: 5, 1: 4}, {0: 5, 1: 3, 2: 1}, {3: 2}] + [{0: 9}] * 9
    splits = {"train": range(24), "val": range(24, 32)}
    shown = samples.choose(range(32), counted, splits, 6)
    assert len(shown) == 6 and {21, 22} <= {*shown} and max(shown) >= 24
    assert set().union(*(counted[i] for i in shown)) == {0, 1, 2, 3}
    assert samples.choose(range(32), counted, splits, 99) == list(range(32))
    assert samples.choose([3], [], {}, 5) == [3]


def picture(height, width, caption="x"):
    image = np.zeros((height, width, 3), np.uint8)
    return contact_sheet.Picture(image, image, np.zeros((height, width), bool), caption)


def test_sheets_of_odd_contents_are_readable():
    legend = [
        ((9, 9, 9), f"a class of long name {i} \u65e5", "1.00%") for i in range(254)
    ]
    pictures = [picture(3000, 10), picture(10, 3000), picture(1, 1, "\u65e5" * 300)]
    sheet = contact_sheet.draw(pictures, legend, "t" * 999)
    assert sheet.shape[1] <= 1800 and sheet.shape[0] < 3000
    assert contact_sheet.draw([picture(5, 7)], [], "one").shape[1] <= 1800
