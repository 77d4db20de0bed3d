"""The backend builds the model that a MindSpore user would write by hand."""

import mindspore as ms
import numpy as np
import pytest

from maam.mindspore import build
from maam.mindspore.arrays import mindspore_name, read_arrays

EXACT = {"rtol": 0, "atol": 0}
ROUNDED = {"rtol": 1e-6, "atol": 0}
"""For gradients through softmax, which is composed of other operators here."""
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture(params=["maam_cifar10_2m3", "maam_digits"])
def pair(request, load, scramble):
    """Both models with the same arrays, by a plain mapping of canonical names."""
    handwritten = load("handwritten")
    ours = scramble(build(request.param))
    plain = handwritten.classifier(**handwritten.PRESETS[request.param])
    arrays = read_arrays(ours)
    names = {mindspore_name(p.name, p.role): p.name for p in ours.spec.parameters()}
    parameters = {name: ms.Parameter(ms.Tensor(arrays[key]), name=name) for name, key in names.items()}
    assert ms.load_param_into_net(plain, parameters, strict_load=True) == ([], [])
    return ours, plain


@pytest.fixture
def batch(pair):
    generator = np.random.default_rng(2)
    return ms.Tensor(generator.normal(size=(4, *pair[0].spec.input_shape)).astype(np.float32))


def state(model):
    return {p.name: p.asnumpy().copy() for p in model.get_parameters()}


def same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, **(ROUNDED if name == "agents.alpha" else EXACT), err_msg=name)


def step(model, x):
    """Return the output and all gradients by name, of a loss that weights every output differently."""

    def forward(x):
        y = model(x)
        return (y * weights).sum(), y

    weights = ms.Tensor(np.linspace(-1, 2, 40).reshape(4, 10).astype(np.float32))
    parameters = model.trainable_params()
    function = ms.value_and_grad(forward, 0, ms.ParameterTuple(parameters), has_aux=True)
    if ms.get_context("mode") == ms.GRAPH_MODE:
        function = ms.jit(function)
    (_, y), (dx, gradients) = function(x)
    found = {p.name: g.asnumpy() for p, g in zip(parameters, gradients, strict=True)}
    return {"output": y.asnumpy(), "input": dx.asnumpy(), **found}


def test_handwritten_is_free_of_maam(load):
    assert not [name for name in vars(load("handwritten")) if "maam" in name]


def test_names(pair):
    ours, plain = (set(state(model)) for model in pair)
    assert ours == plain


def test_inference(pair, batch):
    ours, plain = (model.set_train(False)(batch).asnumpy() for model in pair)
    np.testing.assert_allclose(ours, plain, **EXACT)
    assert np.abs(plain).max() > 0.1


def test_outputs_gradients_and_statistics(pair, batch):
    ours, plain = pair
    before = state(plain)
    ours, plain = (step(model.set_train(), batch) for model in pair)
    same(ours, plain)
    assert all(np.any(plain[name]) for name in plain)
    after = state(pair[1])
    same(state(pair[0]), after)
    moved = {name for name in after if np.any(after[name] != before[name])}
    assert moved == {name for name in after if "moving" in name}
