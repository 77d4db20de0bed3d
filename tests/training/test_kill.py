"""`kill -9` at any moment, and inside the write of a checkpoint: the resumed run ends with the same bits."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("kill_worker.py")
KILLED = -9


def start(framework, out, file="last", doomed=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOG_v": "4", "MS_OM_PATH": str(out.parent)}
    return subprocess.Popen([sys.executable, str(WORKER), framework, str(out), file, str(doomed)], env=environment)


def finish(framework, out):
    assert start(framework, out).wait() == 0
    return {name: (out / name).read_bytes() for name in ("last.safetensors", "final.safetensors", "best.safetensors")}


def kill_inside_a_write(framework, out, file, doomed):
    assert start(framework, out, file, doomed).wait() == KILLED


def kill_somewhere(framework, out, generator):
    """Wait for the training to begin, and a little longer; a run that is over by then is left alone."""
    process, log = start(framework, out), out / "log.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns > before):
        time.sleep(0.005)
    time.sleep(generator.uniform(0, 1.5))
    process.kill()
    return process.wait()


@pytest.mark.parametrize(
    ("framework", "moments", "writes"),
    [
        ("torch", 1, 1),
        pytest.param("torch", 17, 3, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param("mindspore", 17, 3, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_killed_and_resumed(framework, moments, writes, tmp_path):
    pytest.importorskip(framework)
    expected = finish(framework, tmp_path / "whole")
    generator = random.Random(0)
    out, killed, number = tmp_path / "killed0", 0, 0
    for doomed in range(1, writes + 1):
        kill_inside_a_write(framework, out, "last", doomed)
    for _ in range(10 * moments):
        if killed == moments:
            break
        if kill_somewhere(framework, out, generator) == KILLED:
            killed += 1
        else:  # it came to its end: go on with a new run
            assert finish(framework, out) == expected
            number += 1
            out = tmp_path / f"killed{number}"
            start(framework, out, "last", 2).wait()
    assert killed == moments
    (out / "final.safetensors").unlink(missing_ok=True)  # the last kill may have come after it
    kill_inside_a_write(framework, out, "final", 1)
    assert finish(framework, out) == expected
