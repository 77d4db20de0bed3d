"""The backends build the model that a user of the framework would write by hand: equal bit for bit."""

import importlib
from collections import Counter

import numpy as np
import pytest

from maam import spec

EXACT = {"rtol": 0, "atol": 0}
ROUNDED = {"rtol": 1e-6, "atol": 0}
"""For gradients through softmax, which maam.mindspore composes of other operators."""
PRESETS = {
    "maam_cifar10_2m3": {},
    "maam_digits": {"in_channels": 1, "hidden": 16, "out": 32, "side": 4, "width": 64, "pool1": False},
}
pytestmark = pytest.mark.slow_in("graph-maam_cifar10_2m3")


@pytest.fixture(params=PRESETS)
def pair(request, runtime):
    """Both models with the same weights; strict loading shows that they have the same names."""
    handwritten = importlib.import_module(f"tests.{runtime.name}.handwritten")
    assert not [name for name in vars(handwritten) if "maam" in name]
    ours = runtime.scramble(runtime.maam.build(request.param))
    plain = handwritten.classifier(**PRESETS[request.param])
    if runtime.name == "torch":
        plain.load_state_dict(ours.state_dict(), strict=True)
    else:
        parameters = {p.name: runtime.ms.Parameter(p.value(), name=p.name) for p in ours.get_parameters()}
        assert runtime.ms.load_param_into_net(plain, parameters, strict_load=True) == ([], [])
    return ours, plain


def make_batch(model):
    return np.random.default_rng(2).normal(size=(2, *model.spec.input_shape)).astype(np.float32)


def same(runtime, actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        rounded = runtime.name == "mindspore" and name == "agents.alpha"
        np.testing.assert_allclose(actual[name], array, **(ROUNDED if rounded else EXACT), err_msg=name)


def operators(torch, model, x):
    graph = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).graph
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_function")


def test_names_and_outputs_in_inference_mode(runtime, pair):
    x = make_batch(pair[0])
    ours, plain = (runtime.call(runtime.train(model, False), x) for model in pair)
    np.testing.assert_allclose(ours, plain, **EXACT)
    assert np.abs(plain).max() > 0.1
    same(runtime, *(runtime.state(model) for model in pair))


def test_outputs_gradients_and_statistics_in_train_mode(runtime, pair):
    before, x = runtime.state(pair[1]), make_batch(pair[0])
    ours, plain = (runtime.step(runtime.train(model), x, (2, 10)) for model in pair)
    same(runtime, ours, plain)
    assert all(np.any(array) for array in plain.values())
    after = runtime.state(pair[1])
    same(runtime, runtime.state(pair[0]), after)
    moved = {name for name in after if np.any(after[name] != before[name])}
    assert moved == {name for name in after if any(part in name for part in ("moving", "running", "tracked"))}
    assert before["agents.alpha"].std() > 0  # equal weights of all branches would hide a wrong fusion
    if runtime.name == "torch":
        assert after["agents.0.bn1.num_batches_tracked"] == 1


@pytest.mark.parametrize("runtime", ["torch"], indirect=True)
class TestTorch:
    def test_gradients_in_eval_mode(self, runtime, pair):
        x = make_batch(pair[0])
        same(runtime, *(runtime.step(model.eval(), x, (2, 10)) for model in pair))
        same(runtime, *(runtime.state(model) for model in pair))

    def test_optimizer_step(self, runtime, pair):
        x = make_batch(pair[0])
        for model in pair:
            optimizer = runtime.torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
            for _ in range(2):
                runtime.step(model, x, (2, 10))
                optimizer.step()
        same(runtime, *(runtime.state(model) for model in pair))

    @pytest.mark.parametrize("training", [True, False])
    def test_exported_operators(self, runtime, pair, training):
        x = runtime.tensor(make_batch(pair[0]))
        ours, plain = (operators(runtime.torch, model.train(training), x) for model in pair)
        assert ours == plain  # the order may differ in w1 a + w2 b

    def test_exported_operators_differ_for_another_architecture(self, runtime):
        first, other = (runtime.maam.build(spec.preset("maam_digits", num_agents=count)) for count in (3, 2))
        x = runtime.tensor(make_batch(first))
        assert operators(runtime.torch, first, x) != operators(runtime.torch, other, x)
