"""The package as a whole: what an import loads, lazy names, and what all backends offer."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import maam
from maam import errors, spec
from maam._system import command_line
from maam.errors import SpecError
from tests.errors import error_of

PACKAGE = Path(maam.__file__).parent
BACKENDS = ("torch", "mindspore", "reference")
OPTIONAL = {"torch", "mindspore", "mindcv", "timm", "torchvision"}
OWN_NAMES = {
    *("Optimized", "optimize", "iterable_dataset"),  # PyTorch: compiled copies; its DataLoader takes such a data set
    *("Configuration", "configure", "generator_dataset"),  # MindSpore: settings of the process; for Model.train
}
"""Public names that only one of the two frameworks has."""
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
LIGHT = {"maam", "numpy", "cython_runtime", *PYDANTIC}
WEIGHTS = {*LIGHT, "ml_dtypes", "safetensors"}


def loaded_by(statement):
    """Return the modules that a new interpreter loads for a statement."""
    command = [sys.executable, "-c", f"import sys; {statement}; print(*sorted(sys.modules))"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def parts_of_maam(modules):
    return [name for name in modules if name.partition(".")[0] == "maam"]


def backend(name):
    pytest.importorskip("maam" if name == "reference" else name)
    return getattr(maam, name)


LOADED = {
    "import maam; dir(maam); maam.SpecError": {"maam"},
    "import maam.spec as s; s.preset('maam_digits').to_json()": LIGHT,
    "import maam.reference as r, numpy; r.build('maam_digits')(numpy.zeros((2, 1, 8, 8)), training=True)": WEIGHTS,
    "import maam.backend.convert; from maam.backend import load_backend": WEIGHTS,
}


def test_packages_and_parts_that_are_loaded():
    before = {*loaded_by("pass")}
    for statement, allowed in LOADED.items():
        loaded = {name.partition(".")[0] for name in {*loaded_by(statement)} - before} - sys.stdlib_module_names
        assert {name for name in loaded if not name.startswith("_")} <= allowed, statement
    assert parts_of_maam(loaded_by("import maam; dir(maam)")) == ["maam"]
    assert parts_of_maam(loaded_by("import maam; maam.SpecError")) == ["maam", "maam.errors"]
    loaded_by("import maam; assert (maam.deploy.__name__, maam.plots.__name__) == ('maam.deploy', 'maam.plots')")


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_a_layer_loads_little(framework):
    pytest.importorskip(framework)
    loaded = loaded_by(f"from maam.{framework} import MAAM")
    own = parts_of_maam(loaded)
    assert len(own) <= 60
    parts = {name.split(".")[1] for name in own[1:]}
    assert not {"training", "data", "parity", "porting", "deploy", "cli"} & parts
    assert ({"torch", "mindspore"} - {framework}).isdisjoint(loaded)


def test_public_names_resolve_and_type_checkers_see_them():
    names = set(maam.__all__) - OPTIONAL
    assert names <= set(dir(maam))
    assert [name for name in names if getattr(maam, name) is None] == []
    block = next(node for node in ast.parse(Path(maam.__file__).read_text()).body if isinstance(node, ast.If))
    assert {alias.asname: node.module for node in block.body for alias in node.names} == maam._HOMES
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found <= set(maam.__all__)


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_resolve_and_refuse_other_objects(name):
    module = backend(name)
    assert module.__name__ == f"maam.{name}"
    assert all(hasattr(module, public) for public in module.__all__)
    for given in (3, None, b"maam_digits", {"kind": "identity"}, spec.maam, spec.Conv2d, object()):
        expected = f"expected a spec or the name of a preset, got an object of type {type(given).__name__}"
        assert error_of(SpecError, module.build, given) == expected


def test_backends_offer_the_same_names():
    torch, mindspore = set(backend("torch").__all__), set(backend("mindspore").__all__)
    assert torch ^ mindspore == OWN_NAMES
    assert set(maam.reference.__all__) - {"ReferenceModel"} <= torch & mindspore


def test_errors_for_an_unknown_name_and_for_those_of_a_submodule():
    assert error_of(AttributeError, getattr, maam, "nonsense") == "module 'maam' has no attribute 'nonsense'"
    for name in maam._ELSEWHERE:
        refused, _, hint = error_of(AttributeError, getattr, maam, name).partition("; use ")
        assert refused == f"module 'maam' has no attribute {name!r}"
        for home in hint.replace(" or ", ", ").split(", "):
            module, _, last = home.rpartition(".")
            assert (module[:5], last) == ("maam.", name)
            assert f'"{name}"' in (PACKAGE / module[5:] / "__init__.py").read_text()


def test_the_version_is_the_installed_one():
    assert maam.__version__ == importlib.metadata.version("maam")
    assert f"\nversion: {maam.__version__}\n" in (Path(__file__).parents[1] / "CITATION.cff").read_text()


@pytest.mark.parametrize("program", ["/somewhere/bin/maam", "/somewhere/maam/__main__.py"])
def test_a_command_is_written_as_it_is_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "train", "maam digits"])
    assert command_line() == "maam train 'maam digits'"
