"""The page for one's own pictures, in a real browser and without one."""

import dataclasses
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import browser
import numpy as np
import pytest
from example_runs import ROOT, run
from PIL import Image

from fcn_jax.demo.segmenter import Segmenter
from fcn_jax.evaluation import tasks, trained

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def workdir(whole, tmp_path_factory):
    """The run with a class whose name is no harmless text."""
    copy = tmp_path_factory.mktemp("demo") / "run"
    shutil.copytree(whole[0], copy)
    for checkpoint in (copy / "checkpoints").iterdir():
        path = checkpoint / "_CHECKPOINT_METADATA"
        path.write_text(path.read_text().replace("house", HOSTILE))
    return copy


@pytest.fixture(scope="module")
def address(workdir):
    """Of the page, served as a user does."""
    pytest.importorskip("gradio")
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "run_demo.py"), f"--workdir={workdir}"),
            "--max_upload_mb=1",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    line = process.stdout.readline()
    yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def network(whole):
    return trained.load(whole[0])


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "my photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return path


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # An element that is not there yet, or no longer.
            last = error
        else:
            last = None
        time.sleep(0.1)
    raise AssertionError(f"nothing after {seconds} s: {last}")


def give(driver, path):
    driver.find_element("css selector", "#picture input[type=file]").send_keys(
        str(path)
    )


def source(driver):
    return driver.find_element("css selector", "#result img").get_attribute("src")


def test_a_picture_is_dropped_and_its_classes_are_shown(address, photo):
    with browser.open_browser() as driver:
        driver.get(address)
        wait_for(
            lambda: driver.find_element("css selector", "#picture input[type=file]")
        )
        give(driver, photo)
        before = wait_for(lambda: source(driver))
        legend = wait_for(lambda: driver.find_element("css selector", "#legend table"))
        assert not driver.find_elements("css selector", "#legend img")  # Escaped.
        shares = [float(s) for s in re.findall(r"([\d.]+)%", legend.text)]
        assert sum(shares) == pytest.approx(100, abs=0.3) and shares[0] == max(shares)
        slider = driver.find_element("css selector", "#opacity input[type=range]")
        slider.send_keys("\ue012" * 4)  # The left arrow.
        wait_for(lambda: source(driver) != before)
        # Nobody else is asked for anything.
        asked = browser.requests(driver)
        assert asked and all(
            url.startswith((address, "ws://127.0.0.1")) for url in asked
        )

        browser.set_size(driver, 390, 800, mobile=True)
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390


def test_a_file_that_is_no_picture_is_a_sentence_on_the_page(address, tmp_path):
    (tmp_path / "letter.png").write_text("dear")
    with browser.open_browser() as driver:
        driver.get(address)
        wait_for(
            lambda: driver.find_element("css selector", "#picture input[type=file]")
        )
        give(driver, tmp_path / "letter.png")
        message = wait_for(lambda: driver.find_element("css selector", "#message p"))
        assert "letter.png (4 bytes) is not an image" in message.text
        assert not driver.find_elements("css selector", "#legend table")


def test_a_file_that_is_too_large_is_refused(address):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    body += bytes(1_200_000) + b"\r\n--x--\r\n"
    asked = urllib.request.Request(
        f"{address}gradio_api/upload",
        body,
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(asked, timeout=60)
    assert error.value.code == 413
    error.value.close()


def test_browsers_are_told_to_ask_nobody_else(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_it_listens_on_this_machine_alone(address):
    port = int(re.search(r":(\d+)/", address)[1])
    with socket.socket() as other:
        other.settimeout(5)
        with pytest.raises(OSError):
            other.connect(("127.0.0.2", port))


def test_pictures_are_those_that_prediction_sees(network, photo, tmp_path):
    segmenter = Segmenter(network, max_side=128)
    image, ids = segmenter.segment(str(photo))
    np.testing.assert_array_equal(image, np.asarray(Image.open(photo)))
    logits = network.model.apply(network.variables, image[None])
    np.testing.assert_array_equal(ids, logits.argmax(-1)[0])
    with Image.open(segmenter.save(ids, str(tmp_path))) as mask:
        np.testing.assert_array_equal(np.asarray(mask), ids)
    Image.fromarray(np.full((300, 100), 40_000, np.uint16)).save(tmp_path / "16.tif")
    image, ids = segmenter.segment(str(tmp_path / "16.tif"))
    assert image.shape == (128, 43, 3) and ids.shape == (128, 43)
    assert (image == round(40_000 / 257)).all()


def test_areas_and_masks_of_many_labels(network, tmp_path):
    task = tasks.make("multilabel", 3, (0.5,))
    segmenter = Segmenter(dataclasses.replace(network, task=task), max_side=99)
    masks = np.zeros((4, 5, 3), np.uint8)
    masks[:2, :, 0] = masks[:, :, 2] = 1
    legend = segmenter.legend(masks)
    assert re.findall(r"[\d.]+%", legend) == ["100.0%", "50.0%"]
    assert "No class" in segmenter.legend(masks * 0)
    with zipfile.ZipFile(segmenter.save(masks, str(tmp_path))) as archive:
        files = [io.BytesIO(archive.read(name)) for name in archive.namelist()]
    found = [np.asarray(Image.open(file)) for file in files]
    np.testing.assert_array_equal(np.stack(found, -1), masks * 255)


def test_a_port_that_is_taken_is_named(address, workdir):
    port = re.search(r":(\d+)/", address)[1]
    done = run("run_demo.py", f"--workdir={workdir}", f"--port={port}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"port {port}" in done.stderr and "another --port" in done.stderr
