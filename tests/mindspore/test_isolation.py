"""What importing the room loads, and what it says where MindSpore is missing; each in a process of its own."""

import subprocess
import sys

import pytest

FORBIDDEN = ("torch", "sklearn", "matplotlib", "typer", "rich")

USE = f"""
import os
import sys
import numpy
os.environ["GLOG_v"] = "2"
import maam.mindspore
import mindspore
mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
model = maam.mindspore.build("maam_digits", seed=0).set_train()
x = mindspore.Tensor(numpy.ones((2, 1, 8, 8), numpy.float32))
mindspore.value_and_grad(lambda x: model(x).sum(), None, model.trainable_params())(x)
maam.mindspore.MAAM(1)(x)
print([name for name in {FORBIDDEN} if name in sys.modules], os.environ["GLOG_v"])
"""

IMPORT = """
import maam.spec
from maam.errors import MaamError, MissingFrameworkError
try:
    import maam.mindspore
except MissingFrameworkError as error:
    assert isinstance(error, MaamError) and isinstance(error, ImportError)
    print(error)
"""

NONE = "import sys; sys.modules['mindspore'] = None"

FINDER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mindspore":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""

SILENT = """
import sys
from importlib.machinery import PathFinder
class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "mindspore" else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_loads_no_stranger_and_keeps_the_log_level():
    assert run(USE) == "[] 2"


@pytest.mark.parametrize("block", [NONE, FINDER, SILENT], ids=["none", "finder", "not_installed"])
def test_missing_mindspore(block):
    message = "mindspore is not installed; run: pip install 'maam[mindspore]'"
    assert run(f"{block}\n{IMPORT}") == message
