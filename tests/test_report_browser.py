"""The report in Chromium: sorted, enlarged, on a phone and in the dark."""

import browser
import example_reports
import pytest

from fcn_jax.reporting import report

HOSTILE = example_reports.NAMES[1]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("a folder") / "report.html"
    report.write(path, example_reports.make())
    return path


@pytest.fixture(scope="module")
def driver():
    with browser.open_browser() as driver:
        yield driver


@pytest.fixture
def page(driver, path):
    browser.set_size(driver, 1280, 900)
    browser.set_dark(driver, False)
    browser.requests(driver), browser.console(driver)
    driver.get(path.as_uri())
    yield driver
    # After whatever the test did.
    assert browser.console(driver) == []
    assert browser.requests(driver) == [path.as_uri()]


def column(driver, index):
    return driver.execute_script(
        "return [...document.querySelectorAll('table.sortable tbody tr')]"
        ".map(row => row.cells[arguments[0]].textContent.trim())",
        index,
    )


def heads(driver):
    return driver.find_elements("css selector", "table.sortable thead button")


def orders(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('table.sortable thead th')]"
        ".map(head => head.getAttribute('aria-sort'))"
    )


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def active(driver, script="outerHTML.slice(0, 200)"):
    return driver.execute_script(f"return document.activeElement.{script}")


def test_a_table_sorts_by_clicks(page):
    before = column(page, 0)
    assert before == list(example_reports.NAMES)
    assert set(orders(page)) == {"none"}
    heads(page)[1].click()
    numbers = [float(text.rstrip(" %")) for text in column(page, 1)[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert column(page, 0)[-1] == "absent"
    assert orders(page)[:3] == ["none", "descending", "none"]
    heads(page)[1].click()
    assert column(page, 1)[:-1] == [f"{n:.1f} %" for n in sorted(numbers)]
    assert column(page, 0)[-1] == "absent"  # What is missing stays last.
    assert orders(page)[1] == "ascending"
    heads(page)[5].click()  # Pixels: numbers, not text.
    pixels = [int(text.replace(",", "")) for text in column(page, 5)]
    assert pixels == sorted(pixels, reverse=True) and len(set(pixels)) > 3
    assert orders(page)[:2] == ["none", "none"]
    heads(page)[0].click()  # Names, and the numbers in them.
    assert column(page, 0) == [HOSTILE, "absent", "car 9", "car 10", "sky"]


def test_a_table_sorts_by_keys(page):
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.TAB)
    assert active(page, "textContent") == "Skip to the content"
    assert active(page, "getBoundingClientRect().left") >= 0  # It shows now.
    press(page, Keys.ENTER)
    for _ in range(20):
        press(page, Keys.TAB)
        if active(page, "textContent") == "IoU":
            break
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.execute_script(outline) == "solid"
    press(page, Keys.ENTER)
    assert orders(page)[1] == "descending"
    press(page, Keys.SPACE)
    assert orders(page)[1] == "ascending"
    press(page, Keys.TAB, Keys.ENTER)
    assert orders(page)[1:3] == ["none", "descending"]


def test_pictures_open_and_close_by_keys(page):
    from selenium.webdriver.common.keys import Keys

    buttons = page.find_elements("css selector", "button.picture")
    assert len(buttons) == 16
    dialog = page.find_element("css selector", "dialog")
    page.execute_script("arguments[0].focus()", buttons[1])
    press(page, Keys.ENTER)
    assert dialog.is_displayed()
    large = dialog.find_element("css selector", "img")
    small = buttons[1].find_element("css selector", "img")
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.size["width"] > 3 * small.size["width"]
    assert dialog.find_element("id", "caption").text.startswith("Truth of image ")
    press(page, Keys.ARROW_RIGHT)
    assert dialog.find_element("id", "caption").text.startswith("Prediction of ")
    press(page, Keys.ESCAPE)
    assert not dialog.is_displayed()
    # The focus is where the picture is that was looked at last.
    assert page.switch_to.active_element == buttons[2]
    buttons[0].click()
    assert dialog.is_displayed()
    dialog.find_element("css selector", ".close").click()
    assert not dialog.is_displayed()


def test_names_are_text(page):
    rows = page.find_elements("css selector", "table.sortable tbody th")
    assert HOSTILE in [row.text for row in rows]
    assert page.find_elements("css selector", "img[src=x]") == []
    plots = "return document.querySelector('.matrix').textContent"
    assert "<img src=x onerr" in page.execute_script(plots)
    # A script or handler that did run would have opened an alert, which fails here.
    assert page.title == "Evaluation of runs & more"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_is_never_wider_than_the_window(page, width):
    browser.set_size(page, width, 800, mobile=width < 500)
    for details in page.find_elements("css selector", "details:not([open])"):
        page.execute_script("arguments[0].open = true", details)
    found = page.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert found == [width, width]


def test_the_dark_page_is_dark_and_legible(page):
    script = (
        "const style = getComputedStyle(document.querySelector(arguments[0]));"
        "return style[arguments[1]].match(/[0-9.]+/g).slice(0, 3).map(Number)"
    )

    def brightness(selector, what):
        return sum(page.execute_script(script, selector, what)) / 3

    for dark in (False, True):
        browser.set_dark(page, dark)
        paper = brightness("body", "backgroundColor")
        assert paper < 40 if dark else paper > 240
        for selector in ("h1", "td", "header p", "figcaption", "summary"):
            assert abs(brightness(selector, "color") - paper) > 100, selector
        assert abs(brightness(".plot text", "fill") - paper) > 150


def test_nothing_moves_for_people_who_want_that(page):
    style = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert page.execute_script(style) == "auto"
    browser.set_dark(page, False, still=False)
    assert page.execute_script(style) == "smooth"
