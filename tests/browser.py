"""The system's Chromium without a window, for tests of pages."""

import base64
import contextlib
import json
import pathlib
import shutil

import pytest


@contextlib.contextmanager
def open_browser(width=1280, height=900, *, dark=False):
    """A Selenium driver; the test is skipped where there is none, or no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless=new", "no-sandbox", "disable-dev-shm-usage"),
        *("hide-scrollbars", "disable-gpu"),
    ):
        options.add_argument(f"--{argument}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = webdriver.ChromeService(executable_path=chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        set_size(driver, width, height)
        set_dark(driver, dark)
        yield driver
    finally:
        driver.quit()


def set_size(driver, width, height, *, mobile=False):
    """The size of the page; ``mobile`` as on a phone, with its meta viewport."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
    )


def set_dark(driver, dark, *, still=True):
    """Whether the person prefers dark pages, and those in which nothing moves."""
    features = {
        "prefers-color-scheme": "dark" if dark else "light",
        # What glides to its place cannot be clicked yet.
        "prefers-reduced-motion": "reduce" if still else "no-preference",
    }
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": k, "value": v} for k, v in features.items()]},
    )


def console(driver):
    """Messages of the console since the last call, errors and warnings alike."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver):
    """URLs that were asked for since the last call, without those in the page."""
    messages = [json.loads(e["message"]) for e in driver.get_log("performance")]
    urls = [
        message["message"]["params"]["request"]["url"]
        for message in messages
        if message["message"]["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def screenshot(driver, path, *, whole=True):
    """Saves a PNG of the page, whole or what the window shows."""
    found = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": whole}
    )
    pathlib.Path(path).write_bytes(base64.b64decode(found["data"]))
