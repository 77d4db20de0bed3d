"""A gradient is held to float64 on its own side of the kinks; what no kink explains stays a difference."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_double
from maam.parity.kinks import ROUNDING, Reference, calm_batch, crossings, named_gradients
from maam.parity.subject import Subject

pytest.importorskip("torch")

NODE = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)


@pytest.fixture(scope="module")
def subject():
    arrays = spec.draw(NODE.parameters(), 0)
    images = np.random.default_rng(1).random((64, 1, 8, 8)).astype(np.float32)
    labels = np.zeros(64, np.int32)
    return Subject(NODE, arrays, images, labels, [], double=make_double(NODE, arrays))


@pytest.fixture(scope="module")
def reference(subject):
    """Of the first batch with a kink within reach that has an effect."""
    for index in range(16):
        found = Reference(subject, subject.arrays, subject.batch(index)[0], subject.cotangent(index))
        if found._kinks and max(found.share(name, array) for name, array in found._effect(0).items()) > 1e-3:
            return found
    raise AssertionError("no batch with a kink")


def off(reference, actual, gradients):
    return max(reference.share(name, actual[name] - gradients[name]) for name in actual)


def other_side(reference):
    """The gradients with the nearest kink crossed."""
    effect = reference._effect(0)
    return {name: array + effect.get(name, 0.0) for name, array in reference.gradients.items()}


def test_the_same_side(reference):
    settled = reference.settle(reference.gradients)
    assert settled.crossed == 0
    assert off(reference, reference.gradients, settled.gradients) == 0


def test_the_other_side(reference):
    actual = other_side(reference)
    assert off(reference, actual, reference.gradients) > 1e-3
    settled = reference.settle(actual)
    assert settled.crossed == 1
    assert off(reference, actual, settled.gradients) < ROUNDING


def test_gradients_of_parameters_tell_the_side_of_the_input_too(reference):
    actual = other_side(reference)
    settled = reference.settle({name: array for name, array in actual.items() if name})
    assert off(reference, actual, settled.gradients) < ROUNDING


@pytest.mark.parametrize("size", [1e-3, 1e-1])
@pytest.mark.parametrize("name", ["agents.0.conv1.weight", "agents.1.bn2.weight", "classifier.fc2.weight"])
def test_a_fault_is_no_kink(reference, name, size):
    wrong = other_side(reference)
    noise = np.random.default_rng(2).standard_normal(wrong[name].shape)
    wrong[name] = wrong[name] + size * reference.largest[name] * noise / np.abs(noise).max()
    settled = reference.settle(wrong)
    assert off(reference, wrong, settled.gradients) > size / 2


def test_a_scaled_gradient_is_no_kink(reference):
    wrong = {name: array * 1.01 for name, array in reference.gradients.items()}
    assert off(reference, wrong, reference.settle(wrong).gradients) > 5e-3


def test_noise_is_that_of_rounding(reference):
    assert all(0 < noise < 1e-4 for noise in reference.noise.values())
    assert all(reference.credit(name) <= 1e-3 for name in reference.noise)


def test_calm_batch(subject):
    index, found = calm_batch(subject, subject.arrays, subject.cotangent, start=2)
    assert index >= 2
    assert found.calm
    x = subject.batch(index)[0]
    expected = named_gradients(subject.double, subject.arrays, x, subject.cotangent(index))
    assert off(found, expected, found.gradients) == 0


def test_words():
    assert [crossings(count) for count in (0, 1, 2)] == ["", "1 kink on the other side", "2 kinks on the other side"]
