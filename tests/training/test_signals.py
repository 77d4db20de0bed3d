"""SIGINT and SIGTERM: a checkpoint, one line that says how to go on, no other files, and the same bits in the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from maam.training.run_dir import WRITTEN, RunFolder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")
OPTIONS = ["-o", "epochs=40", "-o", "batch_size=64", "--checkpoint-steps", "1000", "--num-workers", "0"]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORD = {130: "interrupted", 143: "stopped"}


def start(out, framework, *more):
    command = [sys.executable, "-m", "maam", "train", "maam_digits", *OPTIONS, "--out", out, "--framework", framework]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *more], preexec_fn=_heed_signals, **pipes)


def _heed_signals():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets programs in the background ignore it


def status_of(process):
    process.communicate(timeout=300)
    return process.returncode


def wait_for_steps(process, run, steps):
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        records = run.log.records()
        if records and records[-1]["step"] >= steps:
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("framework", "number"),
    [
        ("torch", signal.SIGTERM),
        pytest.param("mindspore", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("torch", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("mindspore", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_a_run(framework, number, tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(run.path, framework)
    wait_for_steps(process, run, 50)
    try:
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    expected = {STATUS[number], 143 if framework == "mindspore" else STATUS[number]}  # it turns SIGINT into SIGTERM
    assert process.returncode in expected, errors
    advice = "run the same command with --resume to continue from the last checkpoint"
    assert errors.splitlines()[-1] == f"maam: {WORD[process.returncode]}; {advice}"
    assert {path.name for path in run.path.iterdir()} <= set(WRITTEN)
    checkpoint = run.read_last()
    assert checkpoint.state.step == run.log.records()[-1]["step"] >= 50


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


@pytest.mark.parametrize("program", [SECOND, OWN_HANDLERS, IMPORT], ids=["second signal", "own handlers", "import"])
def test_handlers(program, tmp_path):
    """In a process of its own, whose handlers are those of the program."""
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits(framework, tmp_path):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    short = ["-o", "epochs=8"]
    assert status_of(start(whole.path, framework, *short)) == 0
    process = start(parts.path, framework, *short)
    wait_for_steps(process, parts, 50)
    process.send_signal(signal.SIGTERM)
    assert status_of(process) == 143
    assert status_of(start(parts.path, framework, *short, "--resume")) == 0
    assert whole.final.read_bytes() == parts.final.read_bytes()
