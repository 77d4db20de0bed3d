"""Checkpoints: broken files, full disks, and runs that cannot be resumed with another recipe."""

import errno
from unittest.mock import Mock

import numpy as np
import pytest

from maam.backend.convert import convert
from maam.errors import TrainingError, WeightsError
from maam.training.checkpoint import find_not_finite, read_checkpoint, write_checkpoint
from maam.weights import read_weights
from maam.weights.file import read_header_and_arrays, write_safetensors
from tests.errors import error_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.lr": 0.2}, "done: optimizer: this run was started with {'name': 'sgd', 'lr': 0.1, "),
        ({"seed": 3}, "done: seed: this run was started with 0, not 3; resume it with the same recipe, or start a new"),
        ({"batch_size": 64}, "done: batch_size: this run was started with 128, not 64; .*, or start a new run from"),
        ({"overrides.hidden_features": 16}, "this is a checkpoint of another model than maam_digits"),
    ],
)
def test_resume_with_another_recipe(short, done_refuses, changes, message):
    done_refuses(message, short.replaced(changes))


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_truncated_checkpoint(short, done, done_refuses, size):
    done.last.write_bytes(done.last.read_bytes()[:size])
    done_refuses(r"last.safetensors: not a safetensors file, or truncated", short)


def change_header(path, **fields):
    header, arrays = read_header_and_arrays(path)
    write_safetensors(path, arrays, {**header, **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progress", "{}"),
        ("progress", "nonsense"),
        ("progress", '{"step": "x", "loss_scale": null, "best_accuracy": 0}'),
        ("progress", '{"step": 1, "loss_scale": [1], "best_accuracy": 0}'),
        ("recipe", "[]"),
        ("recipe", '{"epochs": 0}'),
        ("spec", "{"),
    ],
)
def test_broken_header(done, field, value):
    change_header(done.last, **{field: value})
    assert "the checkpoint's header is broken" in error_of(TrainingError, read_checkpoint, done.last)


def test_checkpoint_of_an_earlier_version_and_files_that_are_no_checkpoints(done):
    change_header(done.last, progress='{"step": 11, "loss_scale": null, "best_accuracy": 0.5}')
    assert read_checkpoint(done.last).state.skipped == 0
    change_header(done.last, format_version="99")
    for path in (done.final, done.last):
        message = f"{path}: expected a training checkpoint of version 1, got format"
        assert error_of(TrainingError, read_checkpoint, path).startswith(message)


def test_arrays_that_do_not_fit(done):
    header, arrays = read_header_and_arrays(done.last)
    name = next(name for name in arrays if name.startswith("optimizer.momentum_buffer/"))
    for wrong, message in (
        ({k: v for k, v in arrays.items() if k != name}, "momentum_buffer: these arrays do not fit"),
        ({**arrays, name: arrays[name][:1]}, "momentum_buffer: these arrays do not fit"),
        ({**arrays, "model/stranger": np.zeros(1, np.float32)}, "model: these arrays do not fit"),
        ({**arrays, name: np.full_like(arrays[name], np.nan)}, "momentum_buffer: these arrays are not finite"),
    ):
        write_safetensors(done.last, wrong, header)
        assert message in error_of(TrainingError, read_checkpoint, done.last)


@pytest.mark.parametrize("read", [read_weights, lambda path: convert(path, "other.safetensors", "maam_digits")])
def test_checkpoint_is_not_a_weights_file(done, read):
    with pytest.raises(WeightsError, match=r"a training checkpoint; .* best.safetensors and .*final.safetensors"):
        read(done.last)


@pytest.mark.parametrize("function", ["pathlib.Path.write_bytes", "maam._io.os.fsync"])
def test_full_disk_leaves_the_previous_checkpoint(done, monkeypatch, function):
    before, checkpoint = done.last.read_bytes(), read_checkpoint(done.last)
    with monkeypatch.context() as patch:
        patch.setattr(function, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        found = error_of(TrainingError, write_checkpoint, done.last, checkpoint)
    assert "No space left on device; the previous checkpoint is intact" in found
    assert done.last.read_bytes() == before
    assert not [path for path in done.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("section", ["model", "average", "optimizer.momentum_buffer"])
def test_arrays_that_are_not_finite_are_found(done, section):
    found = read_checkpoint(done.last)
    assert find_not_finite(found) == []
    moments = found.state.moments["momentum_buffer"]
    arrays = {"model": found.arrays, "average": found.state.average}.get(section, moments)
    arrays["reduce.conv.weight"] = np.full_like(arrays["reduce.conv.weight"], np.inf)
    assert find_not_finite(found) == [f"{section}/reduce.conv.weight"]


def test_last_checkpoint_is_described_even_if_broken(done):
    assert "of step 11" in done.describe_last()
    done.last.write_bytes(b"")
    assert done.describe_last().startswith(f"the last checkpoint is not usable ({done.last}: not a safetensors file")
