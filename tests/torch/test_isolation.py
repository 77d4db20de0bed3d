"""What importing the room loads, and what it says where PyTorch is missing; each in a process of its own."""

import subprocess
import sys

import pytest

FORBIDDEN = ("mindspore", "sklearn", "matplotlib", "typer", "rich")

USE = f"""
import sys
import maam.torch
import torch
model = maam.torch.build("maam_digits", seed=0)
model(torch.rand(2, 1, 8, 8)).sum().backward()
maam.torch.MAAM(4)(torch.rand(1, 4, 8, 8))
print([name for name in {FORBIDDEN} if name in sys.modules])
"""

IMPORT = """
import maam.spec
from maam.errors import MaamError, MissingFrameworkError
try:
    import maam.torch
except MissingFrameworkError as error:
    assert isinstance(error, MaamError) and isinstance(error, ImportError)
    print(error)
"""

NONE = "import sys; sys.modules['torch'] = None"

FINDER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""

SILENT = """
import sys
from importlib.machinery import PathFinder
class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "torch" else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_loads_no_stranger():
    assert run(USE) == "[]"


def test_works_without_mindspore():
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in FORBIDDEN)
    assert run(f"import sys; {blocked}\n{USE}") == str(list(FORBIDDEN))


@pytest.mark.parametrize("block", [NONE, FINDER, SILENT], ids=["none", "finder", "not_installed"])
def test_missing_torch(block):
    assert run(f"{block}\n{IMPORT}") == "torch is not installed; run: pip install 'maam[torch]'"


def test_spec_loads_no_framework():
    code = "import sys, maam.spec, maam.backend.layers, maam.errors; print([n for n in ('torch', *%r) if n in sys.modules])"  # noqa: E501
    assert run(code % (FORBIDDEN,)) == "[]"
