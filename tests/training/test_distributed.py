"""Training in two processes on a CPU, started by each framework's launcher."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maam.backend.registry import load_training_backend
from maam.training.evaluate import evaluate_file
from maam.training.run_dir import RunFolder
from tests.training import process_worker
from tests.training.conftest import stop

BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def launch(framework, folder, *program):
    """Run a program in two processes as documented; return the exit status and the output."""
    if framework == "torch":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    else:
        command = [str(BIN / "msrun"), "--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}"]
        command += [f"--log_dir={folder / 'log'}", "--join=True", *(["python"] if program[0] == "-m" else [])]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "GLOG_v": "4"}
    environment |= {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0", "MS_OM_PATH": str(folder)}
    options = {"env": environment, "cwd": folder, "timeout": 500, "capture_output": True, "text": True}
    done = subprocess.run([*command, *map(str, program)], **options)
    printed = [done.stdout, done.stderr, *(path.read_text() for path in folder.glob("log/*.log"))]
    return done.returncode, "\n".join(printed)


def check_figures(folder, framework):
    """Check that the figures of a run are those of its weights."""
    figures = json.loads((folder / "results.json").read_text("utf-8"))
    found = evaluate_file(folder, "digits", framework=framework)
    assert figures["accuracy"] == found.accuracy
    assert figures["loss"] == pytest.approx(found.loss, rel=1e-5)


@pytest.mark.slow
def test_gradients_are_the_mean_of_both_processes(framework, tmp_path):
    status, printed = launch(framework, tmp_path, process_worker.__file__, framework, tmp_path)
    assert status == 0, printed[-4000:]
    backend, (images, labels) = load_training_backend(framework), process_worker.batch()
    backend.select_device("cpu")
    halves = [process_worker.gradients(backend, images[rank::2], labels[rank::2]) for rank in range(2)]
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        assert found["gathered"].tolist() == [0, 0, 1]
        for name, array in halves[0].items():
            mean = (array.astype(np.float64) + halves[1][name]) / 2
            np.testing.assert_allclose(found[name], mean, rtol=0, atol=1e-6, err_msg=name)
    moved = max(np.abs(halves[0][name] - halves[1][name]).max() for name in halves[0])
    assert moved > 1e-3  # the halves differ, so a missing mean would be noticed
    for name in process_worker.RUNS[framework]:
        check_figures(tmp_path / name, framework)
        records = RunFolder(tmp_path / name).log.records()
        assert [record["kind"] for record in records] == ["start", "steps", "epoch"]
        assert records[2]["test_accuracy"] > 0.5
        assert (tmp_path / name / "report.md").exists()


@pytest.fixture
def begun(framework, recipe, recipe_file, tmp_path):
    """A run of one process that was stopped, and the command that began it."""
    recipe, out = recipe.replaced({"epochs": 1, "precision": "fp32"}), tmp_path / "run"
    stop(recipe, out, framework=framework, at=8)
    return out, ("-m", "maam", "train", "--recipe", recipe_file(recipe), "--framework", framework, "--out", out)


@pytest.mark.slow_in("mindspore")
def test_two_processes_resume_a_run_of_one(framework, begun, tmp_path):
    out, command = begun
    status, printed = launch(framework, tmp_path, *command, "--resume")
    assert status == 0, printed[-4000:]
    records = RunFolder(out).log.records()
    assert [record["step"] for record in records if record["kind"] == "steps"] == [*range(1, 5), 11]
    check_figures(out, framework)


@pytest.mark.slow
def test_both_processes_end_after_an_error(framework, begun, tmp_path):
    out, command = begun
    before = {path: path.read_bytes() for path in out.iterdir()}
    status, printed = launch(framework, tmp_path, *command)
    assert status != 0
    assert f"maam: {out}: this folder contains a run; continue it with resume=True (--resume)" in printed
    assert {path: path.read_bytes() for path in out.iterdir()} == before
