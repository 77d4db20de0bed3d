"""Run the notebooks of docs/notebooks, or the given ones, and save their outputs.

python tools/notebooks.py [NOTEBOOK ...] [--out FOLDER]

Each notebook runs in a temporary folder. Without --out, the outputs replace those in the file.
"""

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
SECONDS = 1200
"""The time limit of a cell."""


def run(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with its outputs. Raises nbclient's CellExecutionError where a cell fails."""
    book = nbformat.read(path, as_version=4)
    metadata = nbformat.from_dict(book.metadata)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    book.metadata = metadata  # without the versions of this machine
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # time stamps, which differ in every run
    return book


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(FOLDER.glob("*.ipynb")))
    parser.add_argument("--out", type=Path, help="write the notebooks with outputs here, not into the files themselves")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        book = run(path)
        target = path if arguments.out is None else arguments.out / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, target)
        print(f"{target}: {sum(cell.cell_type == 'code' for cell in book.cells)} cells ran")


if __name__ == "__main__":
    main()
