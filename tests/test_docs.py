"""What is written about the project is true of it."""

import ast
import pathlib
import re
import runpy

import pytest

from configs import default
from fcn_jax.training import resume

ROOT = pathlib.Path(__file__).parents[1]
configuration = runpy.run_path(str(ROOT / "docs/configuration.py"))
performance = runpy.run_path(str(ROOT / "docs/performance.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_of_all_settings_is_up_to_date():
    text = (ROOT / "docs/configuration.md").read_text()
    source = (ROOT / "configs/default.py").read_text()
    assert text == configuration["render"](source), "run python docs/configuration.py"


def test_the_tables_of_measurements_are_those_of_the_results():
    text = (ROOT / "docs/performance.md").read_text()
    assert text == performance["render"](text), "run python docs/performance.py"
    assert set(re.findall(r"<!-- table (\w+) -->", text)) == set(performance["TABLES"])


def test_the_reference_has_every_setting_with_its_default_and_its_meaning():
    source = (ROOT / "configs/default.py").read_text()
    found = configuration["fields"](source)
    expected = resume.flatten(default.get_config().to_dict())
    assert {name: ast.literal_eval(value) for name, value, _ in found} == expected
    assert all(len(meaning) > 10 for _, _, meaning in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_written_about_exist(page):
    known = resume.flatten(default.get_config().to_dict())
    for name in re.findall(r"--config\.([a-z_.]+)", page.read_text()):
        assert name in known, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_that_are_written_about_exist(page):
    """Of every command line in the text."""
    text = page.read_text().replace("\\\n", " ")
    for script, rest in re.findall(r"(run_\w+\.py)((?: +-[^\n`|]+)*)", text):
        source = (ROOT / script).read_text() + (ROOT / "fcn_jax/cli.py").read_text()
        for flag in re.findall(r"--(\w+)(?=[=\s]|$)", rest):
            defined = re.search(rf'"{flag.removeprefix("no")}"', source)
            assert defined or flag == "help", (script, flag)


SCRIPTS = sorted(ROOT.glob("run_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_has_an_example_and_helps_with_every_flag(script):
    tree = ast.parse(script.read_text())
    assert f"python {script.name} --" in ast.get_docstring(tree)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and "flags.DEFINE" in ast.unparse(call.func):
            name, *_ = texts = [
                node.value
                for node in ast.walk(call)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            assert max(map(len, texts)) > 20, name
    assert script.name in (ROOT / "README.md").read_text()
