"""Networks in which too many values stand near kinks: held as they are, with smooth activations, and part by part."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_double, make_runners
from maam.parity import check, kinks
from maam.parity.kinks import SMOOTH, Reference, smoothed
from maam.parity.subject import Subject

pytest.importorskip("torch")
NODE = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)
WHOLE, SMOOTHED, PARTS = "gradients, fresh weights", "gradients, smooth activations", "gradients, part by part"
TENSOR = "agents.1.conv1.weight"


@pytest.fixture(autouse=True)
def _crowded(monkeypatch):
    """Everything is crowded: the parts are single layers."""
    monkeypatch.setattr(kinks, "CROWD", -1)


class Faulty:
    """A runner that is off by a share in one tensor's gradient, in all models that it makes."""

    def __init__(self, runner, share, ending):
        self.inner, self.share, self.ending = runner, share, ending

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def clone_with(self, *arguments):
        return Faulty(self.inner.clone_with(*arguments), self.share, self.ending)

    def gradients(self, x, cotangent):
        found = self.inner.gradients(x, cotangent)
        for name, gradient in found.parameters.items():
            if self.ending.endswith(name):
                largest = np.abs(gradient).max()
                noise = np.random.default_rng(0).choice([-1, 1], gradient.shape)
                gradient += (self.share * largest * noise).astype(gradient.dtype)
        return found


def run(framework="torch", share=0.0, stages=("gradients",)):
    pytest.importorskip(framework)
    arrays = spec.draw(NODE.parameters(), 0)
    runners, _ = make_runners(NODE, arrays, [framework], compiled=False)
    runners = [Faulty(runner, share, TENSOR) if share else runner for runner in runners if "graph" not in runner.name]
    images = np.random.default_rng(1).random((64, 1, 8, 8)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 10, 64)
    report = check(NODE, images=images, labels=labels, runners=runners, stages=stages, batch_size=4)
    return {row.stage: row for row in report.rows}


def test_smoothed():
    smooth = smoothed(NODE)
    assert smooth.parameters() == NODE.parameters()
    used = {node.function for _, node in smooth.walk() if isinstance(node, spec.Activation)}
    assert not used & SMOOTH.keys()
    assert smoothed(smooth) == smooth
    assert spec.Activation(function="relu").replace(function="silu") == smoothed(spec.Activation(function="relu"))


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_all_agree(framework):
    rows = run(framework)
    assert set(rows) == {"gradient referee, central differences", WHOLE, SMOOTHED, PARTS}
    assert {row.verdict.value for row in rows.values()} == {"pass"}, rows
    assert rows[WHOLE].note.endswith("values near kinks")
    assert rows[WHOLE].bound.startswith("3 x ")
    assert "parts" in rows[PARTS].note


def test_a_fault_is_found_and_named():
    rows = run(share=0.1)
    assert {rows[stage].verdict.value for stage in (SMOOTHED, PARTS)} == {"FAIL"}
    assert rows[SMOOTHED].layer == TENSOR
    assert run(share=0.5)[WHOLE].verdict.value == "FAIL"


def test_steps_are_taken_with_smooth_activations():
    rows = run(stages=("steps",))
    assert {row.verdict.value for row in rows.values()} == {"pass"}, rows
    assert {row.note for row in rows.values()} == {"with smooth activations"}
    assert {row.verdict.value for row in run(share=0.1, stages=("steps",)).values()} == {"pass"}  # no step by it


def test_no_noise_is_no_error():
    """A network without weights has gradients without rounding."""
    node = spec.Sequential(children={"pool": spec.MaxPool2d(kernel_size=2), "act": spec.Activation(function="relu")})
    images = np.random.default_rng(1).random((16, 2, 4, 4)).astype(np.float32)
    report = check(node, images=images, labels=np.zeros(16, np.int32), frameworks=["torch"], stages=["gradients"])
    assert WHOLE in {row.stage for row in report.rows}
    assert not report.failures


def test_a_crowd_is_not_settled(monkeypatch):
    arrays = spec.draw(NODE.parameters(), 0)
    images = np.random.default_rng(1).random((8, 1, 8, 8)).astype(np.float32)
    subject = Subject(NODE, arrays, images, np.zeros(8, np.int32), [], double=make_double(NODE, arrays), batch_size=8)
    reference = Reference(subject, arrays, images, subject.cotangent())
    assert reference.crowded
    off = {name: 2 * gradient for name, gradient in reference.gradients.items()}
    assert reference.settle(off).crossed == 0
    monkeypatch.setattr(kinks, "CROWD", 10**9)
    assert not Reference(subject, arrays, images, subject.cotangent()).crowded
    monkeypatch.setattr(kinks, "DEEP", 3)
    assert Reference(subject, arrays, images, subject.cotangent()).crowded
