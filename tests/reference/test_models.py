"""Whole specs in the referee: containers, training mode, what it refuses, and what can be observed."""

import math

import numpy as np
import pytest

from maam import spec
from maam.errors import PresetError, SpecError, WeightsError
from maam.reference import ReferenceModel, build, model

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 3, 6, 5))
RELU, TANH = (spec.Activation(function=name) for name in ("relu", "tanh"))


def run(node, x=X, arrays=(), training=False):
    return ReferenceModel(node, dict(arrays))(x, training=training)


def test_chains():
    children = {"tanh": TANH, "relu": RELU}
    inner = np.maximum(np.tanh(X), 0)
    np.testing.assert_allclose(run(spec.Sequential(children=children)), inner)
    np.testing.assert_allclose(run(spec.Residual(children=children)), X + inner)
    np.testing.assert_allclose(run(spec.Scale(children=children)), X * inner)
    assert run(spec.Sequential(children={})).tolist() == X.tolist()


def test_a_gate_broadcasts():
    gate = spec.Scale(children={"pool": spec.GlobalPool(function="max"), "tanh": TANH})
    np.testing.assert_allclose(run(gate), X * np.tanh(X.max((2, 3), keepdims=True)))


def test_resize_follows_the_input_of_the_chain():
    node = spec.Resize(children={"pool": spec.AvgPool2d(kernel_size=3)}, stride=2)
    y = run(node)  # 6x5 to 2x1, then to 3x2
    pooled = X[:, :, :, :3].reshape(2, 3, 2, 3, 3).mean((3, 4))
    np.testing.assert_allclose(y, pooled[:, :, [0, 0, 1], None].repeat(2, 3))


@pytest.mark.parametrize("merge", ["sum", "concat", "weighted", "softmax", "dynamic"])
def test_merges(merge):
    branches = {"relu": RELU, "tanh": TANH}
    outputs = np.maximum(X, 0), np.tanh(X)
    fields, arrays = {}, {}
    if merge == "weighted":
        fields = {"weights": (0.25, -2.0)}
    if merge == "softmax":
        arrays = {"alpha": np.log([3.0, 1.0])}
    if merge == "dynamic":
        chain = {"pool": spec.GlobalPool(), "flatten": spec.Flatten(), "fc": spec.Linear(in_features=3, out_features=2)}
        fields = {"weighting": spec.Sequential(children=chain)}
        arrays = {"weighting.fc.weight": RANDOM.normal(size=(2, 3)), "weighting.fc.bias": np.ones(2)}
    y = run(spec.Parallel(children=branches, merge=merge, **fields), arrays=arrays)
    if merge == "concat":
        expected = np.concatenate(outputs, 1)
    else:
        weights = {"weighted": (0.25, -2), "softmax": (0.75, 0.25)}.get(merge, (1, 1))
        if merge == "dynamic":
            values = X.mean((2, 3)) @ arrays["weighting.fc.weight"].T + 1
            weights = values.T[:, :, None, None, None]
        expected = weights[0] * outputs[0] + weights[1] * outputs[1]
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-15)


def test_dynamic_weights_of_vectors():
    weighting = spec.Linear(in_features=3, out_features=2, bias=False)
    node = spec.Parallel(children={"a": RELU, "b": TANH}, merge="dynamic", weighting=weighting)
    x, weight = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(2, 3))
    first, second = (x @ weight.T).T[:, :, None]
    y = run(node, x, {"weighting.weight": weight})
    np.testing.assert_allclose(y, first * np.maximum(x, 0) + second * np.tanh(x), rtol=1e-13)


NORM = {"weight": [1.0, 2, 3], "bias": [0.0, 1, 2], "running_mean": [5.0, 6, 7], "running_var": [1.0, 4, 9]}


@pytest.mark.parametrize("momentum", [0.1, 0.75, 0.0, 1.0])
def test_batch_norm_in_training_mode(momentum):
    referee = ReferenceModel(spec.BatchNorm2d(num_features=3, momentum=momentum, eps=1e-3), NORM)
    y = referee(X, training=True)
    for c in range(3):
        values = X[:, c]
        scale = NORM["weight"][c] / math.sqrt(values.var() + 1e-3)
        np.testing.assert_allclose(y[:, c], (values - values.mean()) * scale + NORM["bias"][c], rtol=1e-12, atol=1e-12)
        mean = (1 - momentum) * NORM["running_mean"][c] + momentum * values.mean()
        var = (1 - momentum) * NORM["running_var"][c] + momentum * values.var(ddof=1)
        assert referee.arrays["running_mean"][c] == pytest.approx(mean, rel=1e-13)
        assert referee.arrays["running_var"][c] == pytest.approx(var, rel=1e-13)


def test_batch_norm_in_inference_mode():
    referee = ReferenceModel(spec.BatchNorm2d(num_features=3), NORM)
    y = referee(X)
    np.testing.assert_allclose(y[:, 1], 2 * (X[:, 1] - 6) / math.sqrt(4 + 1e-5) + 1, rtol=1e-13)
    assert {name: array.tolist() for name, array in referee.arrays.items()} == NORM


@pytest.mark.filterwarnings("error")
def test_no_image_leaves_the_statistics_as_they_are():
    model = build("maam_digits", seed=0)
    before = {name: array.copy() for name, array in model.arrays.items()}
    assert model(np.zeros((0, 1, 8, 8)), training=True).shape == (0, 10)
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(array, before[name])
    assert build("rnn", seed=0)(np.zeros((0, 3, 32, 32))).shape == (0, 10)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "missing: running_mean"),
        ({"more": np.zeros(2)}, "unexpected: more"),
        ({"bias": np.zeros(1)}, r"wrong shape: bias \(1,\) instead of \(3,\)"),
        ({"running_var": [1, -1, 1]}, "negative variances in running_var"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    node = spec.BatchNorm2d(num_features=3)
    whole = {p.name: np.ones(p.shape) for p in node.parameters()}
    given = whole | arrays if arrays else {name: whole[name] for name in ("weight", "bias")}
    with pytest.raises(WeightsError, match=f"ReferenceModel: .*{message}"):
        ReferenceModel(node, given)


def test_the_given_arrays_stay_as_they_are():
    given = {name: np.array(values, np.float32) for name, values in NORM.items()}
    kept = {name: array.copy() for name, array in given.items()}
    referee = ReferenceModel(spec.BatchNorm2d(num_features=3), given)
    referee(X, training=True)
    assert all(np.array_equal(given[name], kept[name]) for name in given)
    assert {array.dtype.name for array in referee.arrays.values()} == {"float64"}
    assert {dtype.name for dtype in referee.dtypes.values()} == {"float32"}


def test_dropout_acts_in_training_mode_alone():
    referee = ReferenceModel(spec.Dropout(p=0.5), {})
    assert referee(X).tolist() == X.tolist()
    first, second = referee(X, training=True), referee(X, training=True)
    assert set(np.unique(first / X)) == {0.0, 2.0}
    assert first.tolist() != second.tolist()
    assert first.tolist() == ReferenceModel(spec.Dropout(p=0.5), {})(X, training=True).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_are_float64(dtype):
    x = X[:, :1, :4, :4].astype(dtype)
    referee = build(spec.maam(1, 4, num_agents=2), seed=1)
    y = referee(x)
    assert y.dtype == np.float64
    assert y.tolist() == referee(x.astype(np.float64)).tolist()
    assert referee(x.tolist()).dtype == np.float64


def test_a_kind_that_it_does_not_have(monkeypatch):
    monkeypatch.delitem(model.LEAVES, spec.Dropout)
    with pytest.raises(SpecError, match=r"maam\.reference has no primitive of kind 'dropout'"):
        build(spec.Sequential(children={"a": spec.Dropout(p=0.5)}))


def test_build_draws_what_the_seed_says():
    node = spec.maam(4)
    drawn = spec.draw(node.parameters(), 3)
    referee = build(node, seed=3)
    assert {name: array.tolist() for name, array in referee.arrays.items()} == {
        name: array.tolist() for name, array in drawn.items()
    }
    one, other = build(node), build(node)
    assert one.arrays["agents.0.conv1.weight"].tolist() != other.arrays["agents.0.conv1.weight"].tolist()
    with pytest.raises(PresetError):
        build("maam_digit")


def test_the_observer_sees_every_layer_in_running_order():
    referee, seen = build("maam_digits", seed=0), []
    referee.observer = lambda path, x, y: seen.append((path, x, y))
    x = RANDOM.random((2, 1, 8, 8))
    y = referee(x)
    assert [path for path, _, _ in seen] == [path for path, _ in referee.spec.walk()]
    assert seen[-1][0] == ""
    assert seen[-1][1].tolist() == x.tolist()
    assert seen[-1][2] is y
    shapes = {path: (given, out) for path, _, given, out in referee.spec.summary((1, 8, 8))}
    assert {path: (a.shape[1:], b.shape[1:]) for path, a, b in seen} == shapes


@pytest.mark.parametrize("training", [False, True])
def test_run_gives_any_layer_alone(training):
    seen = []
    referee = build(spec.maam(1, 4, fusion="dynamic", scales=(1, 2, 1)), seed=0)
    referee.observer = lambda path, x, y: seen.append((path, x, y))
    referee(RANDOM.random((2, 1, 8, 8)), training=training)
    alone = build(referee.spec, seed=0)
    for path, x, y in seen:
        assert alone.run(path, x, training).tolist() == y.tolist()


def test_run_names_a_path_that_does_not_exist():
    with pytest.raises(SpecError, match=r"no layer 'agents\.7' in this spec: '7' is not one of"):
        build("maam_digits", seed=0).run("agents.7", X)


def test_repr():
    assert repr(build("maam_digits", seed=0)) == "ReferenceModel(Model, 49,117 parameters)"
