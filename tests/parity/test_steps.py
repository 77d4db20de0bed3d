"""The NumPy optimizers, and the comparison of a training step with them."""

from types import SimpleNamespace

import numpy as np
import pytest

from maam import spec
from maam.backend.protocol import Capability, OptimizerState
from maam.backend.registry import find_entry
from maam.parity.optimizers import Outcome, StepDifferences, _above_noise, compare_step, gradient_share, take_step
from maam.parity.stages.layers import layer_bound
from maam.parity.stages.steps import OPTIMIZERS
from maam.parity.subject import allowance
from maam.tolerance import LAYER, LOGITS, Allowance
from maam.training import Optimizer
from tests.spec.nodes import chain, conv, norm

NODE = chain(conv=conv(2, 3, 1), bn=norm(3))
EACH = [
    Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    Optimizer(lr=0.1, momentum=0.5, weight_decay=0.1, decay="all"),
    Optimizer(lr=0.1, momentum=0.5, weight_decay=0.1, decay="all", lr_factors={"norm_bias": 8.0, "weight": 0.5}),
    Optimizer(name="adam", lr=0.01, weight_decay=0.1),
    Optimizer(name="adamw", lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-3),
]


@pytest.mark.parametrize("optimizer", EACH, ids=lambda optimizer: f"{optimizer.name}-{optimizer.decay}")
def test_the_numpy_optimizers_agree_with_pytorchs(optimizer):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    arrays = {p.name: generator.standard_normal(p.shape) for p in NODE.parameters() if p.trainable}
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    groups = [
        {"params": [tensors[n] for n in names], "weight_decay": decay, "lr": optimizer.lr * factor}
        for decay, factor, names in optimizer.groups(NODE)
    ]
    native = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer.name]
    torch_optimizer = native(groups, lr=optimizer.lr, **optimizer.settings)
    state = OptimizerState(0, {m: {n: np.zeros_like(a) for n, a in arrays.items()} for m in optimizer.moments})
    for _ in range(5):
        gradients = {name: generator.standard_normal(array.shape) for name, array in arrays.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        torch_optimizer.step()
        arrays, state = take_step(optimizer, NODE, arrays, gradients, state, optimizer.lr)
    assert state.step == 5
    for name, tensor in tensors.items():
        np.testing.assert_allclose(arrays[name], tensor.detach().numpy(), rtol=1e-12, atol=1e-14)
        for moment in optimizer.moments:
            expected = torch_optimizer.state[tensor][moment].numpy()
            np.testing.assert_allclose(state.moments[moment][name], expected, rtol=1e-12, atol=1e-14)


def test_share_of_a_gradient_in_the_first_moment():
    zeros = {p.name: np.zeros(p.shape) for p in NODE.parameters() if p.trainable}
    one = {name: array + 1 for name, array in zeros.items()}
    for optimizer in EACH:
        state = OptimizerState(0, dict.fromkeys(optimizer.moments, zeros))
        moment = take_step(optimizer, NODE, zeros, one, state, 0.1).state.moments[optimizer.moments[0]]
        assert moment["conv.weight"] == pytest.approx(gradient_share(optimizer))


def test_updates_are_compared_where_the_moments_are_above_the_noise():
    for name, first, second, compared in (
        ("adam", [0.1, 1e-3, 0.0], [0.03, 0.03, 0.03], [True, False, False]),
        ("adam", [0.1, 0.1], [0.03, 1e-4], [True, False]),
        ("adam", [0.1], [0.03], [True]),  # a single element is measured by the size of the gradient
        ("adam", [1e-3], [0.03], [False]),
        ("adam", [0.1], [3e-4], [False]),
        ("sgd", [1e-9, 0.1], [0.0, 0.0], [True, True]),
    ):
        moments = {"exp_avg": {"w": np.array(first)}, "exp_avg_sq": {"w": np.array(second) ** 2}}
        state = OptimizerState(3, moments | {"momentum_buffer": moments["exp_avg"]})
        found = _above_noise(OPTIMIZERS[name], state, "w", noise=1e-5, largest=1.0)
        assert found.tolist() == compared, (name, first, second)


@pytest.mark.parametrize(("error", "broken"), [(1.5e-5, False), (1e-4, True)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_rounding_remains_where_gradient_and_momentum_cancel(nesterov, error, broken):
    """For a gradient of 1 on a momentum that leaves 1e-4 of the update, noise and bound allow 2e-5 of the gradient."""
    optimizer, lr = Optimizer(momentum=0.9, nesterov=nesterov), 0.1
    before = -(1.9 - 1e-4) / 0.81 if nesterov else -(1 - 1e-4) / 0.9
    node, names = norm(1), ("weight", "bias")
    start, gradients, noisy = (dict.fromkeys(names, np.array([value])) for value in (0.0, 1.0, 1 + error))
    momentum = OptimizerState(1, {"momentum_buffer": dict.fromkeys(names, np.array([before]))})
    actual, expected = (take_step(optimizer, node, start, g, momentum, lr) for g in (noisy, gradients))
    assert expected.arrays["bias"] == pytest.approx(-1e-5)
    largest = dict.fromkeys(names, 1.0)
    reference = SimpleNamespace(gradients=gradients, largest=largest, floor=1e-2, credit=lambda *_: 1e-5)
    found = StepDifferences()
    compare_step(found, optimizer, reference, start, actual, expected, lr)
    assert (found.step.used > 1) is broken


def runner(name):
    return SimpleNamespace(capabilities=find_entry(name.split()[0]).modes[name])


@pytest.mark.parametrize(("name", "broken"), [("torch", True), ("mindspore graph", True), ("torch compiled", False)])
def test_the_allowance_for_compiled_sums(name, broken):
    state = OptimizerState(1, {})
    actual, expected = (Outcome({"bn.running_mean": np.array([value])}, state) for value in (0.1 + 4e-6, 0.1))
    found, reference = StepDifferences(), SimpleNamespace(gradients={})
    allowed = allowance(runner(name), spec.preset("mafc_v1"))
    compare_step(found, OPTIMIZERS["sgd"], reference, {}, actual, expected, 0.1, allowed)
    assert (found.statistics.used > 1) is broken


def test_only_deep_networks_have_an_allowance_and_the_bound_of_logits():
    deep, shallow = (spec.preset(name) for name in ("mafc_v1", "maam_cifar10"))
    modes = [runner(name) for name in ("torch", "torch compiled", "mindspore graph", "mindspore pynative")]
    eager, compiled, graph, pynative = modes
    assert [allowance(mode, deep).noise for mode in modes] == pytest.approx([1, 10 / 3, 10 / 3, 10 / 3])
    assert allowance(eager, deep) == allowance(graph, shallow) == allowance(pynative, shallow) == Allowance()
    assert allowance(compiled, shallow) == Allowance(trained=pytest.approx(10 / 3))
    assert allowance(SimpleNamespace(capabilities=frozenset(Capability)), deep).most == 10

    network = spec.preset("mafc_v2", cifar=True)
    assert layer_bound(network.at("backbone")) == LOGITS
    assert all(layer_bound(node) == LAYER for path, node in network.walk() if "." in path)
    assert layer_bound(shallow) == LAYER
