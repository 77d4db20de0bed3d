"""Gradients are compared with float64 on their own side of the kinks; a fault remains a difference."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.parity import check, kinks
from maam.parity.kinks import ROUNDING, SMOOTH, GradientReference, calm_batch, crossings, named_gradients, smoothed
from maam.tolerance import NOISE_MARGIN, ZERO_MARGIN
from tests.parity.faults import faulty_training
from tests.parity.models import SMALL, Wrapper, fresh_subject
from tests.spec.nodes import FLATTEN, POOL, RELU, act, chain, conv, linear, model, norm

pytest.importorskip("torch")

WHOLE, SMOOTHED, PARTS = "gradients, fresh weights", "gradients, smooth activations", "gradients, part by part"
TENSOR = "agents.1.conv1.weight"


@pytest.fixture(scope="module")
def subject():
    return fresh_subject(SMALL, (1, 8, 8))


def reference_of(subject, index=0):
    return GradientReference(subject, subject.arrays, subject.batch(index)[0], subject.cotangent(index))


@pytest.fixture(scope="module")
def reference(subject):
    """Return the gradient reference of the first batch in which a kink has an effect."""
    for index in range(16):
        found = reference_of(subject, index)
        if found._kinks and max(found.share(name, array) for name, array in found._effect(0).items()) > 1e-3:
            return found
    raise AssertionError("no batch with a kink")


def error(reference, actual, gradients):
    return max(reference.share(name, actual[name] - gradients[name]) for name in actual)


def other_side(reference):
    effect = reference._effect(0)
    return {name: array + effect.get(name, 0.0) for name, array in reference.gradients.items()}


def test_both_sides(reference):
    same = reference.settle(reference.gradients)
    assert same.crossed == 0
    assert error(reference, reference.gradients, same.gradients) == 0
    actual = other_side(reference)
    assert error(reference, actual, reference.gradients) > 1e-3
    assert reference.settle(actual).crossed == 1
    # The gradients of the parameters alone show the side of the input too.
    for given in (actual, {name: array for name, array in actual.items() if name}):
        assert error(reference, actual, reference.settle(given).gradients) < ROUNDING
    assert [crossings(count) for count in (0, 1, 2)] == ["", "1 kink on the other side", "2 kinks on the other side"]


@pytest.mark.parametrize("size", [1e-3, 1e-1])
@pytest.mark.parametrize("name", ["agents.0.conv1.weight", "agents.1.bn2.weight", "classifier.fc2.weight"])
def test_a_fault_is_not_a_kink(reference, name, size):
    wrong = other_side(reference)
    noise = np.random.default_rng(2).standard_normal(wrong[name].shape)
    wrong[name] = wrong[name] + size * reference.largest[name] * noise / np.abs(noise).max()
    settled = reference.settle(wrong)
    assert error(reference, wrong, settled.gradients) > size / 2


def test_a_scaled_gradient_is_neither_a_kink_nor_noise(reference):
    wrong = {name: array * 1.01 for name, array in reference.gradients.items()}
    assert error(reference, wrong, reference.settle(wrong).gradients) > 5e-3
    assert all(0 < noise < 1e-4 for noise in reference.noise.values())
    assert all(reference.credit(name) <= 1e-3 for name in reference.noise)


def test_calm_batch(subject):
    index, found = calm_batch(subject, subject.arrays, subject.cotangent, start=2)
    assert index >= 2
    assert found.calm
    x = subject.batch(index)[0]
    expected = named_gradients(subject.double, subject.arrays, x, subject.cotangent(index))
    assert error(found, expected, found.gradients) == 0


def test_smoothed():
    smooth = smoothed(SMALL)
    assert smooth.parameters() == SMALL.parameters()
    used = {node.function for _, node in smooth.walk() if isinstance(node, spec.Activation)}
    assert not used & SMOOTH.keys()
    assert smoothed(smooth) == smooth
    assert smoothed(RELU) == act("silu")


def test_a_value_on_a_kink_does_not_fail_the_central_differences():
    """A layer norm over one channel returns its bias, 0, where the ReLU after it has no derivative."""
    report = check(spec.gc(4), frameworks=["torch"], compiled=False, stages=["gradients"])
    assert report.passed, report.to_markdown()
    assert SMOOTHED not in {row.stage for row in report.rows}  # only the central differences use other activations


NARROW = chain(conv=conv(3, 4, 1, bias=False), bn=norm(4))
WIDE = chain(conv=conv(4, 8, 1, bias=False), bn=norm(8), act=act("silu"))
BOTTLENECK = model((3, 6, 6), narrow=NARROW, wide=WIDE, pool=POOL, flatten=FLATTEN, fc=linear(8, 4))
"""A network with a bias in front of a batch norm: `narrow.bn.bias` has a gradient of 0, but for rounding."""


@pytest.mark.parametrize(("size", "verdict"), [(0.0, "pass"), (1e-5, "FAIL")])
def test_only_a_real_change_of_a_bias_without_gradient_is_a_difference(size, verdict):
    def push(optimizer, before, after, momentum, rate):
        after["narrow.bn.bias"] += np.float32(size)

    subject = fresh_subject(BOTTLENECK, (3, 6, 6), classes=4)
    runners, _ = make_runners(BOTTLENECK, subject.arrays, ["torch"], compiled=False)
    runner = faulty_training(runners[0], push)
    report = check(BOTTLENECK, images=subject.images, labels=subject.labels, runners=[runner], stages=["steps"])
    assert next(row for row in report.rows if row.stage == "ten steps, sgd").verdict.value == verdict


def test_a_gradient_of_zero_is_credited_more_noise():
    subject = fresh_subject(BOTTLENECK, (3, 6, 6), count=8, classes=1)
    reference = reference_of(subject)
    for name, margin in (("narrow.bn.bias", ZERO_MARGIN), ("wide.bn.bias", NOISE_MARGIN)):
        assert reference.noise[name] > 0
        assert reference.credit(name) == pytest.approx(margin * reference.noise[name])
        assert reference.credit(name, 2.0) == pytest.approx(2 * margin * reference.noise[name])
        assert reference.credit(name, 1e9, most=10) == pytest.approx(10 * reference.credit(name, 1e9))


def faulty_gradient(runner, share):
    """Return a runner with an error in the gradient of TENSOR, also in all models that it makes."""

    def gradients(x, cotangent):
        found = runner.gradients(x, cotangent)
        for name, gradient in found.parameters.items():
            if TENSOR.endswith(name):
                noise = np.random.default_rng(0).choice([-1, 1], gradient.shape)
                gradient += (share * np.abs(gradient).max() * noise).astype(gradient.dtype)
        return found

    def clone_with(*given):
        return faulty_gradient(runner.clone_with(*given), share)

    return Wrapper(runner, gradients=gradients, clone_with=clone_with)


class TestCrowds:
    """With too many kinks to try: the network as it is, with smooth activations, and part by part."""

    @pytest.fixture(autouse=True)
    def _crowded(self, monkeypatch):
        """Count everything as crowded; the parts are then single layers."""
        monkeypatch.setattr(kinks, "CROWD", -1)

    def rows(self, subject, framework="torch", share=0.0, stages=("gradients",)):
        pytest.importorskip(framework)
        runners, _ = make_runners(SMALL, subject.arrays, [framework], compiled=False)
        runners = [faulty_gradient(r, share) if share else r for r in runners if "graph" not in r.name]
        report = check(SMALL, images=subject.images, labels=subject.labels, runners=runners, stages=stages)
        return {row.stage: row for row in report.rows}

    @pytest.mark.parametrize("framework", ["torch", "mindspore"])
    def test_frameworks_agree(self, subject, framework):
        rows = self.rows(subject, framework)
        assert set(rows) == {"gradient reference, central differences", WHOLE, SMOOTHED, PARTS}
        assert {row.verdict.value for row in rows.values()} == {"pass"}, rows
        assert rows[WHOLE].note.endswith("values near kinks")
        assert rows[WHOLE].bound.startswith("3 x ")
        assert "parts" in rows[PARTS].note

    def test_a_fault_is_found_and_named(self, subject):
        rows = self.rows(subject, share=0.1)
        assert {rows[stage].verdict.value for stage in (SMOOTHED, PARTS)} == {"FAIL"}
        assert rows[SMOOTHED].layer == TENSOR
        assert self.rows(subject, share=0.5)[WHOLE].verdict.value == "FAIL"

    def test_steps_are_taken_with_smooth_activations(self, subject):
        rows = self.rows(subject, stages=("steps",))
        assert {row.verdict.value for row in rows.values()} == {"pass"}, rows
        assert {row.note for row in rows.values()} == {"with smooth activations"}

    def test_no_noise_is_not_an_error(self):
        """A network without weights has gradients without rounding."""
        node = chain(spec.MaxPool2d(kernel_size=2), RELU)
        report = check(node, frameworks=["torch"], compiled=False, stages=["gradients"])
        assert WHOLE in {row.stage for row in report.rows}
        assert not report.failures

    def test_a_crowd_is_not_settled(self, subject, monkeypatch):
        crowded = reference_of(subject)
        assert crowded.crowded
        assert crowded.settle({name: 2 * gradient for name, gradient in crowded.gradients.items()}).crossed == 0
        monkeypatch.setattr(kinks, "CROWD", 10**9)
        assert not reference_of(subject).crowded
        monkeypatch.setattr(kinks, "DEEP", 3)
        assert reference_of(subject).crowded
