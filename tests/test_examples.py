"""The examples of docstrings: each public function and class has one, and all of them run."""

import doctest
import importlib
import inspect
import pkgutil
import sys
import warnings

import pytest

import maam

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
PACKAGES = sorted(m.name for m in pkgutil.iter_modules(maam.__path__, "maam.") if m.ispkg and m.name != "maam.cli")
PUBLIC = ["maam", "maam.plots", "maam.torch.huggingface", *PACKAGES]
"""The modules whose `__all__` users import from."""
MODULES = sorted(m.name for m in pkgutil.walk_packages(maam.__path__, "maam.") if not m.name.endswith("__main__"))


def needed(module):
    return {package for start, found in NEEDS.items() if f"{module}.".startswith(f"{start}.") for package in found}


def load(module):
    for package in sorted(needed(module)):  # MindSpore before ONNX: both bring protobuf
        pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries as they are imported
        return importlib.import_module(module)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    loaded = load(module)
    if mindspore := sys.modules.get("mindspore"):  # its default, graph mode, compiles each layer for a second
        mode = mindspore.get_context("mode")
        request.addfinalizer(lambda: mindspore.set_context(mode=mode))
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said = []
    for example in doctest.DocTestFinder(exclude_empty=True).find(loaded):
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_an_example(module):
    loaded = load(module)
    bare = []
    for name in getattr(loaded, "__all__", ()):
        value = getattr(loaded, name)
        is_class = inspect.isclass(value) and not issubclass(value, BaseException)
        if (is_class or inspect.isroutine(value)) and ">>>" not in (inspect.getdoc(value) or ""):
            bare.append(name)
    assert not bare, f"without an example: {', '.join(bare)}"
