"""Where Adam's update is compared: not where the moments have cancelled down to the noise of the gradients."""

from types import SimpleNamespace

import numpy as np
import pytest

from maam import spec
from maam.parity.optimizers import OptimizerState, Outcome, Worst, _above_noise, judge, take_step
from maam.parity.stages.layers import layer_bound
from maam.parity.stages.steps import OPTIMIZERS
from maam.parity.tolerance import Rounding, rounding
from maam.tolerance import LAYER, LOGITS
from maam.training import Optimizer

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
    judge(
        worst,
        OPTIMIZERS["sgd"],
        SimpleNamespace(gradients={}),
        {},
        own,
        expected,
        0.1,
        rounding(runner, spec.preset("mafc_v1")),
    )
    assert (worst.statistics.used > 1) is broken


def test_only_deep_networks_get_more_in_statistics_and_steps():
    deep, shallow = (spec.preset(name) for name in ("mafc_v1", "maam_cifar10"))
    assert rounding("torch compiled", deep).noise == rounding("mindspore graph", deep).noise == pytest.approx(10 / 3)
    assert rounding("torch", deep) == rounding("mindspore graph", shallow) == Rounding()
    assert rounding("torch compiled", shallow) == Rounding(trained=pytest.approx(10 / 3))


@pytest.mark.parametrize(("error", "broken"), [(1.5e-5, False), (1e-4, True)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_where_gradient_and_momentum_cancel_rounding_stays(nesterov, error, broken):
    """A gradient of 1 on a momentum that leaves 1e-4 of the update: noise and bound allow 2e-5 of the gradient."""
    optimizer, lr = Optimizer(momentum=0.9, nesterov=nesterov), 0.1
    before = -(1.9 - 1e-4) / 0.81 if nesterov else -(1 - 1e-4) / 0.9
    node, names = spec.BatchNorm2d(num_features=1), ("weight", "bias")
    start, gradients, noisy = (dict.fromkeys(names, np.array([value])) for value in (0.0, 1.0, 1 + error))
    momentum = OptimizerState(1, {"momentum_buffer": dict.fromkeys(names, np.array([before]))})
    own, expected = (take_step(optimizer, node, start, g, momentum, lr) for g in (noisy, gradients))
    assert expected.arrays["bias"] == pytest.approx(-1e-5)
    largest = dict.fromkeys(names, 1.0)
    reference = SimpleNamespace(gradients=gradients, largest=largest, floor=1e-2, credit=lambda *_: 1e-5)
    worst = Worst()
    judge(worst, optimizer, reference, start, own, expected, lr)
    assert (worst.step.used > 1) is broken


def test_a_deep_container_is_no_layer():
    network = spec.preset("mafc_v2", cifar=True)
    assert layer_bound(network.at("backbone")) == LOGITS
    assert all(layer_bound(node) == LAYER for path, node in network.walk() if "." in path)
    assert layer_bound(spec.preset("maam_cifar10")) == LAYER
