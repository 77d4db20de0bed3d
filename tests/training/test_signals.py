"""SIGINT and SIGTERM: a checkpoint, one line that says how to go on, no other files, and the same bits in the end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from maam._signals import Deferred, reinstall
from maam.training.run_dir import WRITTEN, RunFolder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")
OPTIONS = ["-o", "epochs=40", "-o", "batch_size=64", "--checkpoint-steps", "1000", "--num-workers", "0"]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORD = {130: "interrupted", 143: "stopped"}


def start(out, framework, *more):
    command = [
        sys.executable,
        "-m",
        "maam",
        "train",
        "maam_digits",
        *OPTIONS,
        "--out",
        str(out),
        "--framework",
        framework,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=_heed_signals, **pipes)


def _heed_signals():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets programs in the background ignore it


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
        ("mindspore", signal.SIGINT),
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
    assert errors.splitlines()[-1] == (
        f"maam: {WORD[process.returncode]}; run the same command with --resume to continue from the last checkpoint"
    )
    assert {path.name for path in run.path.iterdir()} <= set(WRITTEN)
    checkpoint = run.read_last()
    assert checkpoint.state.step == run.log.records()[-1]["step"] >= 50


@pytest.fixture
def _python_handlers():
    """Install Python's handlers: a shell lets programs in the background ignore SIGINT."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_python_handlers")
def test_the_second_signal_acts_at_once():
    with Deferred() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_python_handlers")
def test_handlers_of_the_program_are_kept():
    def own(*_):
        return None

    before = signal.signal(signal.SIGTERM, own)
    try:
        with Deferred():
            reinstall()
            assert signal.getsignal(signal.SIGTERM) is own
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        thread = threading.Thread(target=lambda: Deferred().__enter__())  # signals belong to the main thread
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits(framework, tmp_path):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    short = ["-o", "epochs=8"]
    assert start(whole.path, framework, *short).wait(300) == 0
    process = start(parts.path, framework, *short)
    wait_for_steps(process, parts, 50)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert start(parts.path, framework, *short, "--resume").wait(300) == 0
    assert whole.final.read_bytes() == parts.final.read_bytes()
    assert Path(parts.log.path).exists()
