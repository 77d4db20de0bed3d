"""The backend builds the model that a PyTorch user would write by hand: equal bit for bit, operator for operator."""

from collections import Counter

import pytest
import torch

from maam import spec
from maam.torch import build

PRESETS = ["maam_cifar10_2m3", "maam_digits"]
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(params=PRESETS)
def pair(request, load, scramble):
    """Both models with the same weights; strict loading shows that they have the same keys."""
    handwritten = load("handwritten")
    ours = scramble(build(request.param))
    plain = handwritten.classifier(**handwritten.PRESETS[request.param])
    plain.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(plain.state_dict(), strict=True)
    return ours, plain


def batch(model):
    return torch.randn(4, *model.spec.input_shape, generator=torch.Generator().manual_seed(2))


def operators(model, x):
    dynamic = ({0: torch.export.Dim("n")},)
    graph = torch.export.export(model, (x,), dynamic_shapes=dynamic).graph
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_handwritten_is_free_of_maam(load):
    assert not [name for name in vars(load("handwritten")) if "maam" in name]


def test_keys(pair):
    ours, plain = pair
    assert set(ours.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_statistics(pair, step, training):
    ours, plain = (model.train(training) for model in pair)
    x = batch(ours)
    before = ours.agents.alpha.detach().clone()
    torch.testing.assert_close(step(ours, x), step(plain, x), **EXACT)
    torch.testing.assert_close(dict(ours.state_dict()), dict(plain.state_dict()), **EXACT)
    assert ours.get_buffer("agents.0.bn1.num_batches_tracked") == int(training)
    assert before.std() > 0  # equal weights for all branches would hide a wrong fusion


def test_optimizer_step(pair, step):
    ours, plain = pair
    x = batch(ours)
    for model in pair:
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
        for _ in range(2):
            step(model, x)
            optimizer.step()
    torch.testing.assert_close(dict(ours.state_dict()), dict(plain.state_dict()), **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_exported_operators(pair, training):
    ours, plain = (model.train(training) for model in pair)
    x = batch(ours)
    assert Counter(operators(ours, x)) == Counter(operators(plain, x))  # the order may differ in w1 a + w2 b


def test_exported_operators_differ_for_another_architecture(load):
    handwritten = load("handwritten")
    plain = handwritten.classifier(**handwritten.PRESETS["maam_digits"])
    other = build(spec.preset("maam_digits", num_agents=2))
    x = batch(other)
    assert Counter(operators(other, x)) != Counter(operators(plain, x))


def test_step_times_helper_runs(load, pair):
    seconds = load("step_times").measure(*pair, batch(pair[0]), steps=1)
    assert len(seconds) == 2
    assert min(seconds) > 0
