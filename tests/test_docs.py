"""Pages, examples in docstrings, notebooks and the site: code runs, links lead to files, all agrees with the code."""

import ast
import doctest
import html
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from functools import partial
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
NEEDS = {
    "maam.torch": ("torch",),
    "maam.mindspore": ("mindspore",),
    "maam.backend.protocol": ("torch",),
    "maam.data.dataset": ("sklearn",),
    "maam.timm": ("torch", "timm"),
    "maam.torchvision": ("torch", "torchvision"),
    "maam.mindcv": ("mindspore", "mindcv"),
    "maam.parity": ("torch", "mindspore"),
    "maam.porting": ("torch", "mindspore"),
    "maam.deploy": ("torch", "onnxruntime"),
    "maam.training": ("torch", "sklearn", "matplotlib"),
    "maam.torch.huggingface": ("torch", "huggingface_hub"),
    "maam.plots": ("matplotlib",),
}
"""The packages that the examples of a module and of all modules below it need."""
PACKAGES = sorted(m.name for m in pkgutil.iter_modules(maam.__path__) if m.ispkg and m.name != "cli")
"""The packages that users import from; `maam --help` describes the command."""
PUBLIC = ["maam", "maam.plots", "maam.torch.huggingface", *(f"maam.{name}" for name in PACKAGES)]
MODULES = sorted(m.name for m in pkgutil.walk_packages(maam.__path__, "maam.") if not m.name.endswith("__main__"))
in_notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)


def load(path, monkeypatch):
    """Import a file. In graph mode, MindSpore asks for the source and the module of a cell."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def load_module(name):
    needed = {package for start, found in NEEDS.items() if f"{name}.".startswith(f"{start}.") for package in found}
    for package in sorted(needed):  # MindSpore before ONNX: both bring protobuf
        pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries as they are imported
        return importlib.import_module(name)


class TestPages:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_blocks_run(self, block, tmp_path, monkeypatch):
        for framework in ("torch", "mindspore"):
            if framework in block:
                pytest.importorskip(framework)
        if "mindspore" in block:
            importlib.import_module("maam.mindspore")  # limits the instructions of oneDNN before an operator runs
        monkeypatch.chdir(tmp_path)
        (tmp_path / "documentation.py").write_text(block)
        load(tmp_path / "documentation.py", monkeypatch)

    def test_links_lead_somewhere_and_code_fits(self):
        assert len(BLOCKS) >= 4
        assert [one.stem for one in NOTEBOOKS] == ["both_frameworks", "pytorch"]
        for page in (*PAGES, *RESULTS):
            text = page.read_text()
            targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
            assert [target for target in targets if not (page.parent / target).exists()] == [], page
            if page in PAGES:
                blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
                indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
                lines = {*"\n".join(blocks).splitlines(), *indented}
                assert [line for line in lines if len(line) > WIDEST_CODE] == [], page

    def test_the_page_of_models_agrees_with_the_presets(self):
        text = (ROOT / "docs" / "models.md").read_text()
        rows = re.findall(r"^\| `(\w+)`.*? ([\d,]{5,}) \| ([\d,]{5,}) \|", text, re.M)
        specs = {name: maam.preset(name) for name in maam.list_presets()}
        found = {name: (f"{one.num_parameters:,}", f"{one.macs(one.input_shape):,}") for name, one in specs.items()}
        assert {name: tuple(counts) for name, *counts in rows} == found

    @pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive, without git")
    def test_git_ignores_no_file_of_the_project(self):
        folders = ("docs", "examples", "maam", "tests", "tools", "weights")
        command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", *folders]
        ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        assert [path for path in ignored if "__pycache__" not in path] == []


class TestDocstrings:
    @pytest.mark.parametrize("name", MODULES)
    def test_examples_run(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        module = load_module(name)
        if mindspore := sys.modules.get("mindspore"):  # its default, graph mode, compiles each layer for a second
            mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        said = []
        for example in doctest.DocTestFinder(exclude_empty=True).find(module):
            runner.run(example, out=said.append)
        assert runner.summarize(verbose=False).failed == 0, "".join(said)

    @pytest.mark.parametrize("name", PUBLIC)
    def test_public_names_have_an_example(self, name):
        module = load_module(name)
        values = {public: getattr(module, public) for public in getattr(module, "__all__", ())}
        documented = [
            public
            for public, value in values.items()
            if inspect.isroutine(value) or (inspect.isclass(value) and not issubclass(value, BaseException))
        ]
        assert [public for public in documented if ">>>" not in (inspect.getdoc(values[public]) or "")] == []


def code_cells(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def kinds_of_output(cells):
    """Return the kinds of each cell's outputs: text, pictures, tables. How often text was flushed does not matter."""
    return [{name for one in cell["outputs"] for name in one.get("data", {"text": None})} for cell in cells]


def count_pictures(cells):
    return sum("image/png" in output.get("data", ()) for cell in cells for output in cell["outputs"])


class TestNotebooks:
    @in_notebooks
    def test_are_valid_and_have_the_outputs_of_a_complete_run(self, notebook):
        cells = code_cells(json.loads(notebook.read_text())["cells"])
        assert len(cells) >= 4
        for count, cell in enumerate(cells, 1):
            source = "".join(cell["source"])
            ast.parse(source)
            assert max(len(line) for line in source.splitlines()) <= WIDEST_CELL
            assert cell["execution_count"] == count
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert all(output["output_type"] != "error" for output in outputs)
        assert count_pictures(cells) >= 2
        texts = json.dumps([output.get("text", "") for output in outputs])
        assert not any(word in texts for word in ("/tmp", "/home", "/root", "Warning"))
        nbformat = pytest.importorskip("nbformat")
        nbformat.validate(nbformat.reads(notebook.read_text(), as_version=4))

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    @in_notebooks
    def test_run(self, notebook, monkeypatch):
        for package in ("nbclient", "ipykernel", "torch", "mindspore"):
            pytest.importorskip(package)
        before = notebook.read_bytes()
        cells = code_cells(load(ROOT / "tools" / "notebooks.py", monkeypatch).run(notebook).cells)
        assert notebook.read_bytes() == before
        assert kinds_of_output(cells) == kinds_of_output(code_cells(json.loads(before)["cells"]))
        assert count_pictures(cells) >= 2


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site. MkDocs fails on a page outside the navigation, an entry without a page, or a dead link."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


class TestSite:
    def test_signatures(self, site):
        for page, signature in (
            ("deploy", r"export\( src: Any, dst: PathLike,"),  # a function, and a module of the same name
            ("spec", r"maam\( in_channels: Size,"),
            ("spec", r"RNN\(\*, input_size: Size, hidden_size: Size\)"),  # a model of pydantic
            ("spec", r"Parameter\(name: str, shape: Shape, role: Role, init: Init\)"),  # a named tuple
            ("torch", r"SE\( channels: int, rd_ratio: float = 0.0625,.*? device: .*? dtype: "),  # of its composite
        ):
            assert re.search(signature, text_of(site / "api" / f"{page}.html")), signature
        assert "device" not in re.search(r"SE\( channels: .*?\)", text_of(site / "api" / "mindspore.html"))[0]

    def test_the_home_page_and_notebooks(self, site):
        text = text_of(site / "index.html")
        for part in ("both compute the same function", "pip install '.[torch]'", "make demo", "Limits"):
            assert part in text
        assert "assets/overview.svg" in (site / "index.html").read_text()
        page = site / "notebooks" / "pytorch.html"
        assert "MAAM(16, 32, pool=(1, 2))" in text_of(page)
        assert "data:image/png;base64" in page.read_text()

    def test_every_public_package_has_a_page(self):
        pages = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
        assert pages >= set(PACKAGES)
        overview = (ROOT / "docs" / "api" / "index.md").read_text()
        assert all(f"({page}.md)" in overview for page in pages - {"index"})

    def test_every_public_name_is_on_the_page(self, site):
        """The names are read from the file: each framework may be missing."""
        for package in ("backend", "deploy", "mindspore", "parity", "porting", "spec", "torch", "training"):
            page = (site / "api" / f"{package}.html").read_text()
            listed = re.search(
                r"^__all__ = (\[.*?\])", (ROOT / "maam" / package / "__init__.py").read_text(), re.M | re.S
            )
            assert [name for name in ast.literal_eval(listed[1]) if f'id="maam.{package}.{name}"' not in page] == []

    def test_links_out_of_the_documentation(self, monkeypatch):
        errors = pytest.importorskip("mkdocs.exceptions")
        links = load(ROOT / "tools" / "site" / "links.py", monkeypatch)
        for page, given, expected in (
            ("parity.md", "[a](../README.md)", "[a](index.md)"),
            ("results/growth.md", "[a](../../CHANGELOG.md#x)", "[a](../changelog.md#x)"),
            ("results/growth.md", "[a](../parity.md)", "[a](../parity.md)"),
            ("training.md", "[some](../maam/training/recipes)", "some (`maam/training/recipes`)"),
        ):
            assert links.LINK.sub(partial(links.inside, page=page, root=ROOT), given) == expected
        with pytest.raises(
            errors.PluginError, match=r"parity\.md: a link leads to maam/nothing\.py, which does not ex"
        ):
            links.inside(links.LINK.search("[a](../maam/nothing.py)"), "parity.md", ROOT)
