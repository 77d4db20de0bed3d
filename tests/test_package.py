"""The package as a whole: what importing it loads, lazy names, what the rooms have in common, sizes of files."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import maam
from maam import errors, spec
from maam._system import command_line
from maam.errors import SpecError

PACKAGE = Path(maam.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("torch", "mindspore", "reference")
LIBRARIES = {"mindcv": "mindspore", "timm": "torch", "torchvision": "torch"}
"""Folders for a library that builds on a framework, and the framework, which they import too."""
HEAVY = {"torch", "mindspore", "sklearn", "matplotlib", "typer", "rich", "pydantic", "numpy", "scipy", "safetensors"}
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 60
OWN_FILES = {
    "optimization.py": "torch: compiled copies and engines for inference",
    "rivals.py": "torch: what MAAM is compared with and the spec does not have",
    "huggingface.py": "torch: the Hub's mixin is for its modules",
    "speed.py": "torch: how much optimization brings here",
    "configuration.py": "mindspore: settings of the process, by which it is made fast",
    "kinks.py": "torch: it is the referee of gradients",
}
"""Files that only one of the two frameworks' rooms has, and why."""
OWN_NAMES = {
    "Optimized": "torch: what optimize returns",
    "optimize": "torch: MindSpore is made fast by configure and reparameterize",
    "Configuration": "mindspore: what configure returns",
    "configure": "mindspore: settings of the process, which PyTorch has none of",
    "iterable_dataset": "torch: what its DataLoader takes",
    "generator_dataset": "mindspore: what its Model.train takes",
}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_maam_loads_nothing_else():
    program = "import json, sys, maam; dir(maam); print(json.dumps(sorted(sys.modules)))"
    loaded = run(program)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert [name for name in loaded if name.startswith("maam")] == ["maam"]


def test_a_lazy_name_loads_what_it_needs():
    program = "import json, sys, maam; maam.SpecError; print(json.dumps([n for n in sys.modules if 'maam' in n]))"
    assert run(program) == ["maam", "maam.errors"]


@pytest.mark.parametrize("name", sorted(set(maam.__all__) - {"torch", "mindspore", *LIBRARIES}))
def test_every_public_name_resolves(name):
    assert getattr(maam, name) is not None
    assert name in dir(maam)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_resolve(room):
    pytest.importorskip("maam" if room == "reference" else room)
    module = getattr(maam, room)
    assert module.__name__ == f"maam.{room}"
    assert all(hasattr(module, name) for name in module.__all__)


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="module 'maam' has no attribute 'nonsense'"):
        maam.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(maam._ELSEWHERE))
def test_a_name_that_is_elsewhere(name):
    with pytest.raises(AttributeError) as caught:
        getattr(maam, name)
    refused, _, hint = str(caught.value).partition("; use ")
    assert refused == f"module 'maam' has no attribute {name!r}"
    homes = hint.replace(" or ", ", ").split(", ")
    assert all(home.startswith("maam.") and home.endswith(f".{name}") for home in homes)
    for module in {home.rpartition(".")[0] for home in homes}:
        folder = PACKAGE / module.removeprefix("maam.")
        assert f'"{name}"' in (folder / "__init__.py").read_text()


def test_type_checkers_see_the_names_that_are_there():
    block = next(node for node in ast.parse(Path(maam.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == maam._HOMES


def test_every_error_is_public():
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found <= set(maam.__all__)


@pytest.mark.parametrize("name", ["bench", "errors", "plots", "pruning", "quantization", "reproduction"])
def test_a_module_loads_on_access(name):
    assert run(f"import json, maam; print(json.dumps(maam.{name}.__name__))") == f"maam.{name}"


def test_the_version_is_the_installed_one():
    assert maam.__version__ == importlib.metadata.version("maam")
    assert f"\nversion: {maam.__version__}\n" in (Path(__file__).parents[1] / "CITATION.cff").read_text()


def imported(file):
    """The packages that a file imports, anywhere in it; those of maam with two parts."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from (".".join(name.split(".")[:2]) if name.startswith("maam") else name.split(".")[0] for name in names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_framework_is_imported_in_its_room_alone(file):
    folder = file.relative_to(PACKAGE).parts[0]
    room = LIBRARIES.get(folder, folder)
    for framework in ("torch", "mindspore"):
        if room != framework:
            assert not {framework, f"maam.{framework}"} & set(imported(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_small(file):
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_the_rooms_have_the_same_files():
    torch, mindspore = ({path.name for path in (PACKAGE / room).glob("*.py")} for room in ("torch", "mindspore"))
    assert torch ^ mindspore == set(OWN_FILES)


def test_the_rooms_offer_the_same_names():
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    assert set(maam.torch.__all__) ^ set(maam.mindspore.__all__) == set(OWN_NAMES)
    assert set(maam.reference.__all__) - {"ReferenceModel"} <= set(maam.torch.__all__) & set(maam.mindspore.__all__)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("given", [3, None, b"maam_digits", {"kind": "identity"}, spec.maam, spec.Conv2d, object()])
def test_build_refuses_what_is_no_spec(room, given):
    pytest.importorskip("maam" if room == "reference" else room)
    with pytest.raises(SpecError) as caught:
        getattr(maam, room).build(given)
    kind = type(given).__name__
    assert str(caught.value) == f"expected a spec or the name of a preset, got an object of type {kind}"


@pytest.mark.parametrize("program", ["/somewhere/bin/maam", "/somewhere/maam/__main__.py"])
def test_a_command_is_written_as_it_is_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "train", "maam digits"])
    assert command_line() == "maam train 'maam digits'"
