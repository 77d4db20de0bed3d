"""Every Python block of the README and the documentation runs as it stands; every file that they link to exists."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive, where git knows nothing")
@pytest.mark.parametrize("folder", ["docs", "examples", "maam", "tests", "tools", "weights"])
def test_git_ignores_no_file_that_belongs_to_the_project(folder):
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", folder]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [path for path in ignored if "__pycache__" not in path] == []
