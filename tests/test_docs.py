"""README and documentation: every Python block runs, every link leads to a file, tables agree with the code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maam

ROOT = Path(__file__).parents[1]
WIDEST_CODE = 95
"""Characters of a line of code that the site shows without scrolling in a window of 1366 pixels."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch):
    for framework in ("torch", "mindspore"):
        if framework in block:
            pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    # In graph mode, which an earlier test may have chosen, MindSpore asks for the source and the module of a cell.
    path = tmp_path / "documentation.py"
    path.write_text(block)
    spec = importlib.util.spec_from_file_location("documentation", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "documentation", module)
    spec.loader.exec_module(module)


def test_there_are_blocks():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs" / "results").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert all((page.parent / target).exists() for target in targets if "://" not in target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_fits_the_page(page):
    text = page.read_text()
    fenced = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    assert [line for line in {*fenced, *indented} if len(line) > WIDEST_CODE] == []


def test_the_page_of_models_agrees_with_the_presets():
    rows = re.findall(r"^\| `(\w+)`.*? ([\d,]{5,}) \| ([\d,]{5,}) \|", (ROOT / "docs" / "models.md").read_text(), re.M)
    written = {name: (parameters.replace(",", ""), macs.replace(",", "")) for name, parameters, macs in rows}
    specs = {name: maam.preset(name) for name in maam.list_presets()}
    assert written == {name: (str(one.num_parameters), str(one.macs(one.input_shape))) for name, one in specs.items()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive, where git knows nothing")
@pytest.mark.parametrize("folder", ["docs", "examples", "maam", "tests", "tools", "weights"])
def test_git_ignores_no_file_that_belongs_to_the_project(folder):
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", folder]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [path for path in ignored if "__pycache__" not in path] == []
