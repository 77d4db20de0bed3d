"""Parameters and initial weights."""

import math
import zlib
from typing import get_args

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec import Init, Parameter, Role, draw, preset
from maam.spec.parameters import WeightInit
from tests.spec.nodes import chain, conv, linear, norm

CONV, LINEAR, NORM = conv(6, 8, groups=2), linear(50, 150), norm(5)
RNN = spec.RNN(input_size=9, hidden_size=16)
DIGITS = preset("maam_digits").parameters()


def table(node):
    return {parameter.name: parameter for parameter in node.parameters()}


def test_rows_and_roles():
    rows = table(chain(bn=NORM, a=spec.Parallel(children={"c": spec.maam(1)}, merge="softmax")))
    variance = Parameter("bn.running_var", (5,), Role.RUNNING_VAR, Init("constant", 1.0))
    alpha = Parameter("a.alpha", (1,), Role.FUSION, Init("constant", 0.0))
    assert (rows["bn.running_var"], rows["a.alpha"]) == (variance, alpha)
    assert rows["a.c.agents.alpha"].shape == (3,)
    assert not rows["bn.running_mean"].trainable
    assert rows["a.c.agents.0.conv1.weight"].size == 9
    nodes = (spec.maam(4), preset("rnn"), spec.gct(4))
    assert {p.role for node in nodes for p in node.parameters()} == set(Role)
    assert {role for role in Role if not role.trainable} == {Role.RUNNING_MEAN, Role.RUNNING_VAR}
    assert Role("norm_weight") is Role.NORM_WEIGHT


FAN_IN, FAN_SUM = 27, 27 + 36
UNIFORM = ("uniform", 1 / math.sqrt(FAN_IN))
INITS = [
    (CONV, "weight", UNIFORM),
    (CONV, "bias", UNIFORM),
    (CONV.replace(init="kaiming_uniform"), "weight", ("uniform", math.sqrt(6 / FAN_IN))),
    (CONV.replace(init="kaiming_normal"), "weight", ("normal", math.sqrt(2 / FAN_IN))),
    (CONV.replace(init="kaiming_normal"), "bias", UNIFORM),
    (CONV.replace(init="xavier_uniform"), "weight", ("uniform", math.sqrt(6 / FAN_SUM))),
    (CONV.replace(init="xavier_normal"), "weight", ("normal", math.sqrt(2 / FAN_SUM))),
    (LINEAR, "weight", ("uniform", 1 / math.sqrt(50))),
    (LINEAR, "bias", ("uniform", 1 / math.sqrt(50))),
    (LINEAR.replace(init="xavier_uniform"), "weight", ("uniform", math.sqrt(6 / 200))),
    (RNN, "weight_ih_l0", ("uniform", 0.25)),
    (RNN, "bias_hh_l0", ("uniform", 0.25)),
    (NORM, "weight", ("constant", 1.0)),
    (NORM, "running_mean", ("constant", 0.0)),
]


@pytest.mark.parametrize(("node", "name", "init"), INITS)
def test_initial_distributions(node, name, init):
    assert table(node)[name].init == pytest.approx(init)


def test_draws_are_in_float64_from_seed_and_name_alone_then_rounded():
    arrays = draw(DIGITS, 7)
    assert [(name, a.shape, a.dtype) for name, a in arrays.items()] == [(p.name, p.shape, np.float32) for p in DIGITS]
    generators = {name: np.random.default_rng([7, zlib.crc32(name.encode())]) for name in arrays}
    exact = generators["agents.0.conv1.weight"].normal(0.0, math.sqrt(2 / 9), (16, 1, 3, 3))
    np.testing.assert_array_equal(arrays["agents.0.conv1.weight"], exact.astype(np.float32))
    exact = generators["classifier.fc2.bias"].uniform(-1 / 8, 1 / 8, 10)
    np.testing.assert_array_equal(arrays["classifier.fc2.bias"], exact.astype(np.float32))
    constants = {"agents.alpha": 0, "reduce.bn.running_mean": 0, "reduce.bn.running_var": 1, "reduce.bn.weight": 1}
    assert all(np.all(arrays[name] == value) for name, value in constants.items())
    first, again, other = draw(DIGITS, 3), draw(reversed(DIGITS), 3), draw(DIGITS, 4)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert np.ptp(array) == 0 or not np.array_equal(array, other[name])
    full, mean = (draw(preset(name).parameters(), 1) for name in ("maam_cifar10_2m3", "without_fusion"))
    assert set(full) - set(mean) == {"agents.alpha"}
    for name, array in mean.items():
        np.testing.assert_array_equal(array, full[name])
    assert not np.array_equal(full["agents.0.conv1.weight"], full["agents.1.conv1.weight"])


@pytest.mark.parametrize("scheme", sorted({*get_args(WeightInit)} - {"zeros"}))
def test_draws_have_the_moments_of_their_distribution(scheme):
    layer = linear(300, 300, init=scheme)
    scale = table(layer)["weight"].init.value
    weight = draw(layer.parameters(), 5)["weight"].astype(np.float64) / scale
    if scheme.endswith("uniform"):
        assert np.abs(weight * scale).max() <= np.float32(scale)
        assert np.abs(weight).max() > 0.999
        assert abs(weight.mean()) < 0.01
        assert weight.var() == pytest.approx(1 / 3, rel=0.02)
    else:
        assert abs(weight.mean()) < 0.02
        assert weight.std() == pytest.approx(1, rel=0.01)
        assert (weight**4).mean() == pytest.approx(3, rel=0.05)  # the kurtosis of a normal distribution


def test_seeds():
    for seed in (0, 1, 2**32, 2**63 - 1, np.int64(5), np.uint8(5)):
        first, again = (draw(LINEAR.parameters(), value)["weight"] for value in (seed, int(seed)))
        np.testing.assert_array_equal(first, again)
    for seed in (-1, 2**63, 1.0, "1", None, True, np.float32(1), [1]):
        with pytest.raises(SpecError, match=r"seed: expected an integer in \[0, 2\*\*63\), got"):
            draw(LINEAR.parameters(), seed)
