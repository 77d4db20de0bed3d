"""An interrupted and resumed run ends with the same bits as an uninterrupted one, also after a signal or `kill -9`."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from maam import spec
from maam.training import train
from maam.training.checkpoint import read_checkpoint
from maam.training.run_dir import WRITTEN, RunFolder
from tests.training.conftest import stop

WORKER = Path(__file__).with_name("kill_worker.py")
KILLED = -9
STATUS = {"SIGINT": 130, "SIGTERM": 143}
WORD = {130: "interrupted", 143: "stopped"}
slow = pytest.mark.slow
OFTEN = (2, 9, 11, 12, 21)  # before and after the first checkpoint, at the end of an epoch, after it, near the end


def without_times(folder):
    clocks = ("seconds", "images_per_second", "waiting")
    return [{k: v for k, v in record.items() if k not in clocks} for record in folder.log.records()]


def check_same(whole, parts):
    assert without_times(whole) == without_times(parts)
    for file in (whole.last, whole.final, whole.best):
        assert file.read_bytes() == (parts.path / file.name).read_bytes(), file


@pytest.mark.slow_in("mindspore")
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "fast"])
def test_interrupted(framework, with_optimizer, whole_and_parts, name):
    stops = OFTEN if framework == "torch" or name == "sgd" else (9,)
    whole, parts = whole_and_parts(with_optimizer(name), *stops, framework=framework)
    check_same(whole, parts)
    assert len(parts.sessions()) == len(stops) + 1


@pytest.mark.slow_in("fp16")
@pytest.mark.parametrize(("framework", "precision"), [("torch", "bf16"), ("torch", "fp16"), ("mindspore", "fp16")])
def test_interrupted_in_half_precision(framework, precision, recipe, whole_and_parts):
    whole, parts = whole_and_parts(recipe.replaced({"precision": precision}), 9, framework=framework)
    assert read_checkpoint(parts.last).recipe.precision == precision
    check_same(whole, parts)


def test_resumed_run_has_the_same_automatic_precision(recipe, tmp_path, monkeypatch):
    """The fastest precision is measured, so another session could measure another one."""
    recipe = recipe.replaced({"precision": "auto"})
    monkeypatch.setattr("maam.torch.devices.has_fast_bf16", lambda: True)
    stop(recipe, tmp_path / "run", at=5)
    monkeypatch.setattr("maam.torch.devices.has_fast_bf16", lambda: False)
    run = train("maam_digits", recipe, out=tmp_path / "run", resume=True)
    assert [session["recipe"]["precision"] for session in run.sessions()] == ["bf16", "bf16"]
    assert read_checkpoint(run.last).recipe.precision == "bf16"


def test_dropout_depends_on_seed_and_step(recipe, whole_and_parts, monkeypatch):
    def with_dropout(name, **overrides):
        node = spec.preset(name, **overrides)
        *layers, last = node.children.items()
        return node.replace(children=dict([*layers, ("dropout", spec.Dropout(p=0.5)), last]))

    monkeypatch.setattr("maam.training.recipe_files.preset", with_dropout)
    whole, parts = whole_and_parts(recipe, 9)
    assert "dropout" in read_checkpoint(whole.last).spec.children
    check_same(whole, parts)


def begin(framework, out, file="last", doomed=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOG_v": "4", "MS_OM_PATH": str(out.parent)}
    return subprocess.Popen([sys.executable, str(WORKER), framework, str(out), file, str(doomed)], env=environment)


def finish(framework, out):
    assert begin(framework, out).wait() == 0
    return {name: (out / name).read_bytes() for name in ("last.safetensors", "final.safetensors", "best.safetensors")}


def kill_somewhere(framework, out, generator):
    """Kill a run at a random moment after its training has begun; a finished run is left alone."""
    process, log = begin(framework, out), out / "log.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns > before):
        time.sleep(0.005)
    time.sleep(generator.uniform(0, 1.5))
    process.kill()
    return process.wait()


@pytest.mark.parametrize(
    ("framework", "moments", "writes"),
    [
        ("torch", 0, 1),
        pytest.param("torch", 17, 3, marks=[slow, pytest.mark.timeout(1800)]),
        pytest.param("mindspore", 17, 3, marks=[slow, pytest.mark.timeout(3600)]),
    ],
)
def test_killed_and_resumed(framework, moments, writes, tmp_path):
    expected = finish(framework, tmp_path / "whole")
    generator, out, killed = random.Random(0), tmp_path / "killed0", 0
    for doomed in range(1, writes + 1):
        assert begin(framework, out, "last", doomed).wait() == KILLED
    for number in range(10 * moments):
        if killed == moments:
            break
        if kill_somewhere(framework, out, generator) == KILLED:
            killed += 1
        else:  # the run was finished before the kill: continue with a new one
            assert finish(framework, out) == expected
            out = tmp_path / f"killed{number + 1}"
            begin(framework, out, "last", 2).wait()
    assert killed == moments
    (out / "final.safetensors").unlink(missing_ok=True)  # the last kill may have come after this write
    assert begin(framework, out, "final", 1).wait() == KILLED
    assert finish(framework, out) == expected


SECOND = """
import signal
from maam._signals import Deferred
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets programs in the background ignore it
caught = []
with Deferred() as stop:
    signal.raise_signal(signal.SIGINT)
    assert stop.number == signal.SIGINT
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, SystemExit) as error:
            caught.append(getattr(error, "code", "interrupt"))
assert caught == ["interrupt", 143]
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
OWN_HANDLERS = """
import signal, threading
from maam._signals import Deferred, reinstall
def own(*_): pass
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, own)
with Deferred():
    reinstall()
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
errors = []
threading.excepthook = errors.append
thread = threading.Thread(target=lambda: Deferred().__enter__())  # signals belong to the main thread
thread.start()
thread.join()
assert not errors
"""
IMPORT = """
import pathlib, signal, sys
from maam.backend import registry
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]; whole = True"
pathlib.Path(sys.argv[1], "interrupted_import.py").write_text(code)
try:
    registry._import("interrupted_import")
except KeyboardInterrupt:
    assert sys.modules["interrupted_import"].whole
else:
    raise AssertionError
"""
"""Inside the import of an extension module, an interruption would become an ImportError."""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
class TestSignals:
    """A checkpoint, one line that says how to go on, no other files, and the same bits in the end."""

    def start(self, run, framework, *more):
        command = [sys.executable, "-m", "maam", "train", "maam_digits", "--out", run.path, "--framework", framework]
        command += ["-o", "epochs=40", "-o", "batch_size=64", "--checkpoint-steps", "1000", "--num-workers", "0", *more]
        heed = partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        )  # a shell lets programs in the background ignore it
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, preexec_fn=heed, **pipes)

    def stop(self, run, framework, number, *more):
        """Send a signal after 50 steps; return the exit status, and the lines on standard error."""
        process, end = self.start(run, framework, *more), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if (records := run.log.records()) and records[-1]["step"] >= 50:
                break
            time.sleep(0.05)
        try:
            process.send_signal(number)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        return process.returncode, errors.splitlines()

    @pytest.mark.slow_in("mindspore", "SIGINT")
    @pytest.mark.parametrize("name", STATUS)
    def test_one_stops_a_run(self, framework, name, tmp_path):
        run = RunFolder(tmp_path / "run")
        status, errors = self.stop(run, framework, getattr(signal, name))
        expected = {STATUS[name], 143 if framework == "mindspore" else STATUS[name]}  # it turns SIGINT into SIGTERM
        assert status in expected, errors
        advice = "run the same command with --resume to continue from the last checkpoint"
        assert errors[-1] == f"maam: {WORD[status]}; {advice}"
        assert {path.name for path in run.path.iterdir()} <= set(WRITTEN)
        assert run.read_last().state.step == run.log.records()[-1]["step"] >= 50

    @pytest.mark.slow
    def test_a_run_that_was_stopped_ends_with_the_same_bits(self, framework, tmp_path):
        whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
        short = ("-o", "epochs=8")
        assert self.stop(parts, framework, signal.SIGTERM, *short)[0] == 143
        for run, options in ((whole, short), (parts, (*short, "--resume"))):
            process = self.start(run, framework, *options)
            process.communicate(timeout=300)
            assert process.returncode == 0
        assert whole.final.read_bytes() == parts.final.read_bytes()

    @pytest.mark.parametrize("program", [SECOND, OWN_HANDLERS, IMPORT], ids=["second signal", "own handlers", "import"])
    def test_handlers(self, program, tmp_path):
        """In a process of its own, whose handlers are those of the program."""
        command = [sys.executable, "-c", program, str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
