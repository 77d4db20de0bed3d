"""Run the notebooks of docs/notebooks, or those named, each in a folder of its own; the files stay as they are.

python tools/notebooks.py [NOTEBOOK ...] [--out FOLDER]  writes what came out to FOLDER, if one is given.
"""

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
SECONDS = 1200
"""For a cell."""


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs. Raises nbclient's CellExecutionError where a cell does."""
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    return book


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(FOLDER.glob("*.ipynb")))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        book = run(path)
        print(f"{path.name}: {sum(cell.cell_type == 'code' for cell in book.cells)} cells ran")
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            nbformat.write(book, arguments.out / path.name)


if __name__ == "__main__":
    main()
