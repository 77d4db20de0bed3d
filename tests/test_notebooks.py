"""The notebooks of the documentation: valid, without outputs, and (slow) they run."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request):
    return request.param


def test_there_are_two():
    assert [one.stem for one in NOTEBOOKS] == ["both_frameworks", "pytorch"]


def test_valid_and_without_outputs(path):
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.reads(path.read_text(), as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_cells_compile(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for cell in cells:
        ast.parse("".join(cell["source"]))


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
    pictures = [
        output for cell in book.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
    ]
    assert len(pictures) >= 2
    assert path.read_bytes() == before
