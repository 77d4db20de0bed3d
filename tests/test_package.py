"""The package as a whole: what an import loads, lazy names, and what all backends offer."""

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
BACKENDS = ("torch", "mindspore", "reference")
LIBRARIES = {"mindcv": "mindspore", "timm": "torch", "torchvision": "torch"}
"""Packages for a library that builds on a framework; they import the framework too."""
HEAVY = {"torch", "mindspore", "sklearn", "matplotlib", "typer", "rich", "pydantic", "numpy", "scipy", "safetensors"}
OWN_NAMES = {
    *("Optimized", "optimize", "iterable_dataset"),  # PyTorch: compiled copies; its DataLoader takes such a data set
    *("Configuration", "configure", "generator_dataset"),  # MindSpore: settings of the process; for Model.train
}
"""Public names that only one of the two frameworks has."""


def evaluate(expression):
    """Return the value of an expression in a new process that has imported maam."""
    program = f"import json, sys, maam; dir(maam); print(json.dumps({expression}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def backend(name):
    pytest.importorskip("maam" if name == "reference" else name)
    return getattr(maam, name)


def test_an_import_loads_only_what_it_needs():
    loaded = evaluate("sorted(sys.modules)")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert [name for name in loaded if name.startswith("maam")] == ["maam"]
    assert evaluate("(maam.SpecError, [name for name in sys.modules if 'maam' in name])[1]") == ["maam", "maam.errors"]
    assert evaluate("[maam.deploy.__name__, maam.plots.__name__]") == ["maam.deploy", "maam.plots"]


@pytest.mark.parametrize("name", sorted(set(maam.__all__) - {"torch", "mindspore", *LIBRARIES}))
def test_public_names_resolve(name):
    assert getattr(maam, name) is not None
    assert name in dir(maam)


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_resolve(name):
    module = backend(name)
    assert module.__name__ == f"maam.{name}"
    assert all(hasattr(module, public) for public in module.__all__)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'maam' has no attribute 'nonsense'"):
        maam.nonsense  # noqa: B018


@pytest.mark.parametrize("name", sorted(maam._ELSEWHERE))
def test_the_error_for_a_name_of_a_submodule(name):
    with pytest.raises(AttributeError) as caught:
        getattr(maam, name)
    refused, _, hint = str(caught.value).partition("; use ")
    assert refused == f"module 'maam' has no attribute {name!r}"
    for home in hint.replace(" or ", ", ").split(", "):
        module, _, last = home.rpartition(".")
        assert (module[:5], last) == ("maam.", name)
        assert f'"{name}"' in (PACKAGE / module[5:] / "__init__.py").read_text()


def test_type_checkers_see_all_names():
    block = next(node for node in ast.parse(Path(maam.__file__).read_text()).body if isinstance(node, ast.If))
    assert {alias.asname: node.module for node in block.body for alias in node.names} == maam._HOMES
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found <= set(maam.__all__)


def test_the_version_is_the_installed_one():
    assert maam.__version__ == importlib.metadata.version("maam")
    assert f"\nversion: {maam.__version__}\n" in (Path(__file__).parents[1] / "CITATION.cff").read_text()


def imported(file):
    """Yield the packages that a file imports, anywhere in it; those of maam with two parts."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (".".join(name.split(".")[: 2 if name.startswith("maam") else 1]) for name in names)


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_only_its_backend_imports_a_framework(framework):
    for file in PACKAGE.rglob("*.py"):
        folder = file.relative_to(PACKAGE).parts[0]
        if LIBRARIES.get(folder, folder) != framework:
            backend_too = set() if folder == "cli" else {f"maam.{framework}"}  # some commands are for PyTorch only
            assert not {framework, *backend_too} & set(imported(file)), file


def test_backends_offer_the_same_names():
    torch, mindspore = set(backend("torch").__all__), set(backend("mindspore").__all__)
    assert torch ^ mindspore == OWN_NAMES
    assert set(maam.reference.__all__) - {"ReferenceModel"} <= torch & mindspore


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("given", [3, None, b"maam_digits", {"kind": "identity"}, spec.maam, spec.Conv2d, object()])
def test_build_refuses_other_objects(name, given):
    expected = f"expected a spec or the name of a preset, got an object of type {type(given).__name__}$"
    with pytest.raises(SpecError, match=f"^{expected}"):
        backend(name).build(given)


@pytest.mark.parametrize("program", ["/somewhere/bin/maam", "/somewhere/maam/__main__.py"])
def test_a_command_is_written_as_it_is_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "train", "maam digits"])
    assert command_line() == "maam train 'maam digits'"
