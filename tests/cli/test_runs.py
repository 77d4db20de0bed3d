"""`maam runs`; what it calls has its own tests."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"


@pytest.fixture
def runs(tmp_path):
    """Two runs that were published."""
    for name in ("mlp-seed0-torch", "cnn-seed0-torch"):
        shutil.copytree(PUBLISHED / name, tmp_path / "runs" / name)
    return Path("runs")


def test_table_and_picture(run, runs):
    result = run("runs", runs, "--out", "search.md")
    assert result.status == 0
    text = Path("search.md").read_text()
    for words in ("model", "cnn", "mlp", "30 of 30", "80.38%", "45.71%"):
        assert words in result.out
        assert words in text
    assert text.index("cnn-seed0") < text.index("mlp-seed0")
    assert "![accuracy by epoch](search.png)" in text
    assert run("runs", runs, "--out", "my search.md").status == 0
    assert "![accuracy by epoch](my%20search.png)" in Path("my search.md").read_text()
    assert Path("search.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such folder; pass the folder of a run"),
        (["."], ".: contains no run with a finished epoch; pass the folder of a run"),
        (["runs"], "runs/cnn-seed0-torch: this run cannot be read: runs/cnn-seed0-torch/run.json: not the description"),
        (["runs/mlp-seed0-torch", "--out", "table.txt"], "--out table.txt: expected a file that ends with .md"),
        (["runs/mlp-seed0-torch", "--out", "no/t.md"], "--out no/t.md: expected a file in a folder that exists"),
    ],
)
def test_refuses(fails, runs, arguments, message):
    (runs / "cnn-seed0-torch" / "run.json").write_text("[]")
    assert fails("runs", *arguments).startswith(message)
