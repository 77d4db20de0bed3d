"""README, documentation and notebooks: code runs, links lead to files, tables agree with the code."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maam

ROOT = Path(__file__).parents[1]
WIDEST_CODE, WIDEST_CELL = 95, 88
"""Characters of a line of code that the site shows without scrolling in a window of 1366 pixels."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
COMPILED = ("deployment.md", 2)
"""A block that compiles a model in every precision."""
BLOCKS = [
    pytest.param(
        block,
        id=f"{page.name}-{at}",
        marks=[pytest.mark.slow] * ((page.name == "moving.md" and at % 8 > 0) or (page.name, at) == COMPILED),
    )
    for page in PAGES
    for at, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
in_notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)


def load(path, monkeypatch):
    """Import a file. In graph mode, MindSpore asks for the source and the module of a cell."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_blocks_and_notebooks_are_found():
    assert len(BLOCKS) >= 4
    assert [one.stem for one in NOTEBOOKS] == ["both_frameworks", "pytorch"]


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_run(block, tmp_path, monkeypatch):
    for framework in ("torch", "mindspore"):
        if framework in block:
            pytest.importorskip(framework)
    if "mindspore" in block:
        importlib.import_module("maam.mindspore")  # limits the instructions of oneDNN before an operator runs
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documentation.py").write_text(block)
    load(tmp_path / "documentation.py", monkeypatch)


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: page.name)
def test_links_lead_somewhere_and_code_fits(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+)", text)
    assert all((page.parent / target).exists() for target in targets if "://" not in target)
    if page in PAGES:
        fenced = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
        assert [line for line in {*fenced, *indented} if len(line) > WIDEST_CODE] == []


def test_the_page_of_models_agrees_with_the_presets():
    rows = re.findall(r"^\| `(\w+)`.*? ([\d,]{5,}) \| ([\d,]{5,}) \|", (ROOT / "docs" / "models.md").read_text(), re.M)
    written = {name: (parameters.replace(",", ""), macs.replace(",", "")) for name, parameters, macs in rows}
    specs = {name: maam.preset(name) for name in maam.list_presets()}
    assert written == {name: (str(one.num_parameters), str(one.macs(one.input_shape))) for name, one in specs.items()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive, without git")
def test_git_ignores_no_file_of_the_project():
    folders = ("docs", "examples", "maam", "tests", "tools", "weights")
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", *folders]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [path for path in ignored if "__pycache__" not in path] == []


def code_cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def kinds_of_output(cells):
    """Return the kinds of each cell's outputs: text, pictures, tables. How often text was flushed does not matter."""
    return [
        sorted({name for output in cell["outputs"] for name in output.get("data", {"text": None})}) for cell in cells
    ]


def pictures(cells):
    return [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", ())]


@in_notebooks
def test_notebooks_are_valid_and_have_the_outputs_of_a_complete_run(notebook):
    cells = code_cells(notebook)
    assert len(cells) >= 4
    for count, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        ast.parse(source)
        assert max(len(line) for line in source.splitlines()) <= WIDEST_CELL
        assert cell["execution_count"] == count
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert len(pictures(cells)) >= 2
    texts = json.dumps([output.get("text", "") for output in outputs])
    assert not any(word in texts for word in ("/tmp", "/home", "/root", "Warning"))
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(notebook.read_text(), as_version=4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@in_notebooks
def test_notebooks_run(notebook, monkeypatch):
    for package in ("nbclient", "ipykernel", "torch", "mindspore"):
        pytest.importorskip(package)
    before = notebook.read_bytes()
    book = load(ROOT / "tools" / "notebooks.py", monkeypatch).run(notebook)
    assert notebook.read_bytes() == before
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert kinds_of_output(cells) == kinds_of_output(code_cells(notebook))
    assert len(pictures(cells)) >= 2
