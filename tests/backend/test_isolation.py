"""What importing a framework's package loads, and what happens without a framework; each case in a new process."""

import re
import subprocess
import sys

import pytest

from maam.backend import Capability, backend_names, find_entry

FRAMEWORKS = {"torch": "mindspore", "mindspore": "torch"}
"""The frameworks, each with the other one."""
STRANGERS = ("sklearn", "matplotlib", "typer", "rich")
PRELUDE = """
import sys

absent = {absent!r}

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
"""
USE = """
import importlib, os
import numpy as np
from maam import reference, spec
from maam.backend.optimizer import Optimizer

os.environ["GLOG_v"] = "2"
package = importlib.import_module("maam.{name}")
runner_type = importlib.import_module("maam.{name}.runner").Runner
runner_type(package.MAAM(4)).forward(np.ones((1, 4, 8, 8), np.float32))
node = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16, num_agents=1)
x = np.random.default_rng(0).random((16, 1, 8, 8)).astype(np.float32)
runner = runner_type(package.build(node, seed=0))
runner.gradients(x, np.ones((16, 10), np.float32))
print("loaded", [one for one in absent if one in sys.modules], os.environ["GLOG_v"])

absent = absent[:1]  # PyTorch's optimizers and the command line look for other packages
labels = (x.mean((1, 2, 3)) > 0.5).astype(np.int32)
trainer = runner.trainer(Optimizer(lr=0.05))
losses = [trainer.step(x, labels, 0.05) for _ in range(8)]
assert losses[-1] < losses[0], losses

package.save_weights(runner.model, "weights.safetensors")
expected = reference.load("weights.safetensors")(x)
found = runner_type(package.load("weights.safetensors")).forward(x)
np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

from maam.cli import main
for extra in ([], ["--require-all"]):
    sys.argv = "maam parity weights.safetensors --frameworks torch,mindspore".split()
    sys.argv += ["--stages", "exchange,forward", "--no-compiled", *extra]
    try:
        main()
    except SystemExit as error:
        print("status", error.code, flush=True)
assert absent[0] not in sys.modules
"""
IMPORT = """
import maam.spec
from maam.errors import MaamError, MissingFrameworkError
try:
    import maam.{name}
except MissingFrameworkError as error:
    assert isinstance(error, MaamError) and isinstance(error, ImportError)
    print(error)
"""
BLOCKS = {
    "none in sys.modules": "import sys; sys.modules['{name}'] = None",
    "refusing finder": PRELUDE.replace("{absent!r}", "('{name}',)"),
    "not found": """
import sys
from importlib.machinery import PathFinder
class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "{name}" else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
""",
}


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_all_trainable_frameworks_are_tested():
    assert list(FRAMEWORKS) == backend_names(Capability.TRAINING)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("absent", FRAMEWORKS)
def test_a_missing_framework_is_named(absent, block, tmp_path):
    code = BLOCKS[block].format(name=absent) + IMPORT.format(name=absent)
    expected = f"{absent} is not installed; run: pip install .*\\[{find_entry(absent).extra}]'"
    assert re.fullmatch(expected, run(code, tmp_path).stdout.strip())


def test_names_that_load_on_first_use(backend):
    public = backend.maam.__all__
    assert set(public) <= set(dir(backend.maam))
    assert all(callable(getattr(backend.maam, name)) for name in public)
    with pytest.raises(AttributeError, match=f"module 'maam.{backend.name}' has no attribute 'nothing'"):
        backend.maam.nothing  # noqa: B018


def test_no_other_package_is_loaded_or_needed(backend, tmp_path):
    """Inference and gradients need none of them; training and the command line do not need the other framework."""
    absent = FRAMEWORKS[backend.name]
    done = run(PRELUDE.format(absent=(absent, *STRANGERS)) + USE.format(name=backend.name), tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == "loaded [] 2"
    assert [line for line in lines if line.startswith("status")] == ["status 0", "status 1"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert {(row[1].split()[0], row[5]) for row in rows} == {(backend.name, "pass"), (absent, "NOT RUN")}
    assert re.search(f"{absent} is not installed; run: pip install .*\\[{absent}]'", done.stdout)
    assert "maam: --require-all: not every stage ran" in done.stderr
