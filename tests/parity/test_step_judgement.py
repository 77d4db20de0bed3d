"""Where Adam's update is compared: not where the moments have cancelled down to the noise of the gradients."""

from types import SimpleNamespace

import numpy as np
import pytest

from maam import spec
from maam.parity.optimizers import OptimizerState, Outcome
from maam.parity.overrides import rounding
from maam.parity.stages.steps import OPTIMIZERS
from maam.parity.step_judgement import Worst, _above_noise, judge

NOISE = 1e-5


def kept(first, second, name="adam"):
    moments = {"exp_avg": {"w": np.array(first)}, "exp_avg_sq": {"w": np.array(second) ** 2}}
    moments["momentum_buffer"] = moments["exp_avg"]
    return _above_noise(OPTIMIZERS[name], OptimizerState(3, moments), "w", NOISE, largest=1.0).tolist()


def test_above_noise():
    assert kept([0.1, 1e-3, 0.0], [0.03, 0.03, 0.03]) == [True, False, False]
    assert kept([0.1, 0.1], [0.03, 1e-4]) == [True, False]


def test_a_single_element_is_measured_by_the_gradient():
    assert kept([0.1], [0.03]) == [True]
    assert kept([1e-3], [0.03]) == [False]
    assert kept([0.1], [3e-4]) == [False]


def test_sgd_keeps_all():
    assert kept([1e-9, 0.1], [0.0, 0.0], "sgd") == [True, True]


@pytest.mark.parametrize(("runner", "broken"), [("torch", True), ("mindspore graph", True), ("torch compiled", False)])
def test_compiled_sums_are_held_to_their_rounding(runner, broken):
    state = OptimizerState(1, {})
    own, expected = (Outcome({"bn.running_mean": np.array([value])}, state) for value in (0.1 + 4e-6, 0.1))
    worst = Worst()
    judge(worst, OPTIMIZERS["sgd"], SimpleNamespace(gradients={}), {}, own, expected, 0.1, rounding(runner))
    assert (worst.statistics.used > 1) is broken


def test_only_deep_networks_get_more_in_statistics_and_steps():
    deep, shallow = (spec.preset(name) for name in ("mafc_v1", "maam_cifar10"))
    assert [rounding("torch compiled", node) for node in (deep, shallow)] == [pytest.approx(10 / 3), 1.0]
    assert rounding("mindspore graph", deep) == 1.0
