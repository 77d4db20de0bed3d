"""Either framework works where the other is not installed: each in a process in which the other is refused."""

import importlib.util
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())

import numpy as np
import maam
from maam import reference, spec
from maam.training import Optimizer

room = importlib.import_module("maam.{room}")
runner_type = importlib.import_module("maam.{room}.runner").Runner
node = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)
generator = np.random.default_rng(0)
x = generator.random((16, 1, 8, 8)).astype(np.float32)
labels = (x.mean((1, 2, 3)) > 0.5).astype(np.int32)

runner = runner_type(room.build(node, seed=0))
trainer = runner.trainer(Optimizer(lr=0.05))
losses = [trainer.step(x, labels, 0.05) for _ in range(8)]
assert losses[-1] < losses[0], losses

room.save_weights(runner.model, "weights.safetensors")
expected = reference.load("weights.safetensors")(x)
found = runner_type(room.load("weights.safetensors")).forward(x)
np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

from maam.cli import main
for extra in ([], ["--require-all"]):
    sys.argv = ["maam", "parity", "maam_digits", "--frameworks", "torch,mindspore"]
    sys.argv += ["--stages", "exchange,forward", "--no-compiled", *extra]
    try:
        main()
    except SystemExit as error:
        print("status", error.code, flush=True)
assert {absent!r} not in sys.modules
"""


@pytest.mark.parametrize(("room", "absent"), [("torch", "mindspore"), ("mindspore", "torch")])
def test_works_alone(room, absent, tmp_path):
    if importlib.util.find_spec(room) is None:
        pytest.skip(f"{room} is not installed")
    command = [sys.executable, "-c", PROGRAM.format(room=room, absent=absent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("status")] == ["status 0", "status 1"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    verdicts = {(row[1].split()[0], row[5]) for row in rows}
    assert verdicts == {(room, "pass"), (absent, "NOT RUN")}
    assert f"{absent} is not installed; run: pip install 'maam[{absent}]'" in done.stdout
    assert "maam: --require-all: not every stage ran" in done.stderr
