"""The notebooks of the documentation: valid, with the outputs of a complete run, and (slow) they still run."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WIDEST_CODE = 88
"""Characters of a line of code that the site shows without scrolling in a window of 1366 pixels."""
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request):
    return request.param


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def kinds_of_output(cells):
    """The kinds of each cell's outputs: text, pictures, tables. How often text was flushed does not count."""
    return [
        sorted({name for output in cell["outputs"] for name in output.get("data", {"text": None})}) for cell in cells
    ]


def test_there_are_two():
    assert [one.stem for one in NOTEBOOKS] == ["both_frameworks", "pytorch"]


def test_valid(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(path.read_text(), as_version=4))


def test_has_the_outputs_of_a_complete_run(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert sum("image/png" in output.get("data", ()) for output in outputs) >= 2


def test_outputs_hold_nothing_of_the_machine(path):
    texts = json.dumps([output.get("text", "") for cell in code_cells(path) for output in cell["outputs"]])
    assert not any(word in texts for word in ("/tmp", "/home", "/root", "Warning"))


def test_cells_compile(path):
    cells = code_cells(path)
    assert len(cells) >= 4
    for cell in cells:
        source = "".join(cell["source"])
        ast.parse(source)
        assert max(len(line) for line in source.splitlines()) <= WIDEST_CODE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs(path):
    for package in ("nbclient", "ipykernel", "torch", "mindspore"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    before = path.read_bytes()
    book = tool.run(path)
    assert path.read_bytes() == before
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert kinds_of_output(cells) == kinds_of_output(code_cells(path))
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", ())]
    assert len(pictures) >= 2
