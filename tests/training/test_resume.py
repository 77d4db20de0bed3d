"""An interrupted and resumed run ends with the same bits as an uninterrupted one, also after `kill -9`."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maam import spec
from maam.training import train
from maam.training.checkpoint import read_checkpoint
from tests.training.conftest import stop

WORKER = Path(__file__).with_name("kill_worker.py")
KILLED = -9
slow = pytest.mark.slow
OFTEN = (2, 9, 11, 12, 21)  # before and after the first checkpoint, at the end of an epoch, after it, near the end


def without_times(folder):
    clocks = ("seconds", "images_per_second", "waiting")
    return [{k: v for k, v in record.items() if k not in clocks} for record in folder.log.records()]


def check_same(whole, parts):
    assert without_times(whole) == without_times(parts)
    for file in (whole.last, whole.final, whole.best):
        assert file.read_bytes() == (parts.path / file.name).read_bytes(), file


@pytest.mark.parametrize(
    ("framework", "name", "stops"),
    [
        *(("torch", name, OFTEN) for name in ("sgd", "adam", "adamw", "fast")),
        pytest.param("mindspore", "sgd", OFTEN, marks=slow),
        *(pytest.param("mindspore", name, (9,), marks=slow) for name in ("adam", "adamw", "fast")),
    ],
)
def test_interrupted(framework, with_optimizer, whole_and_parts, name, stops):
    whole, parts = whole_and_parts(with_optimizer(name), *stops, framework=framework)
    check_same(whole, parts)
    assert len(parts.sessions()) == len(stops) + 1


@pytest.mark.parametrize(
    ("framework", "precision"),
    [("torch", "bf16"), pytest.param("torch", "fp16", marks=slow), pytest.param("mindspore", "fp16", marks=slow)],
)
def test_interrupted_in_half_precision(framework, precision, recipe, whole_and_parts):
    whole, parts = whole_and_parts(recipe.replaced({"precision": precision}), 9, framework=framework)
    assert read_checkpoint(parts.last).recipe.precision == precision
    check_same(whole, parts)


def test_another_seed_gives_another_model(short, done, tmp_path):
    other = train("maam_digits", short.replaced({"seed": 1}), out=tmp_path / "other")
    assert done.final.read_bytes() != other.final.read_bytes()


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


def start(framework, out, file="last", doomed=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOG_v": "4", "MS_OM_PATH": str(out.parent)}
    return subprocess.Popen([sys.executable, str(WORKER), framework, str(out), file, str(doomed)], env=environment)


def finish(framework, out):
    assert start(framework, out).wait() == 0
    return {name: (out / name).read_bytes() for name in ("last.safetensors", "final.safetensors", "best.safetensors")}


def kill_somewhere(framework, out, generator):
    """Kill a run at a random moment after its training has begun; a finished run is left alone."""
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
        ("torch", 0, 1),
        pytest.param("torch", 17, 3, marks=[slow, pytest.mark.timeout(1800)]),
        pytest.param("mindspore", 17, 3, marks=[slow, pytest.mark.timeout(3600)]),
    ],
)
def test_killed_and_resumed(framework, moments, writes, tmp_path):
    expected = finish(framework, tmp_path / "whole")
    generator, out, killed = random.Random(0), tmp_path / "killed0", 0
    for doomed in range(1, writes + 1):
        assert start(framework, out, "last", doomed).wait() == KILLED
    for number in range(10 * moments):
        if killed == moments:
            break
        if kill_somewhere(framework, out, generator) == KILLED:
            killed += 1
        else:  # the run was finished before the kill: continue with a new one
            assert finish(framework, out) == expected
            out = tmp_path / f"killed{number + 1}"
            start(framework, out, "last", 2).wait()
    assert killed == moments
    (out / "final.safetensors").unlink(missing_ok=True)  # the last kill may have come after this write
    assert start(framework, out, "final", 1).wait() == KILLED
    assert finish(framework, out) == expected
