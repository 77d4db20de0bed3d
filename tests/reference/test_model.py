"""Reference models: outputs, running statistics and errors; tests/weights has those of files."""

import math

import numpy as np
import pytest

from maam import spec
from maam.errors import PresetError, ShapeError, SpecError, WeightsError
from maam.reference import ReferenceModel, build, model
from tests.errors import error_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 3, 6, 5))
RELU, TANH = (spec.Activation(function=name) for name in ("relu", "tanh"))
BRANCHES = {"relu": RELU, "tanh": TANH}


def run(node, x=X, arrays=(), training=False):
    return ReferenceModel(node, dict(arrays))(x, training=training)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_chains():
    children = {"tanh": TANH, "relu": RELU}
    inner = np.maximum(np.tanh(X), 0)
    close(run(spec.Sequential(children=children)), inner)
    close(run(spec.Residual(children=children)), X + inner)
    close(run(spec.Scale(children=children)), X * inner)
    close(run(spec.Sequential(children={})), X)
    gate = spec.Scale(children={"pool": spec.GlobalPool(function="max"), "tanh": TANH})
    close(run(gate), X * np.tanh(X.max((2, 3), keepdims=True)))


def test_resize_follows_the_input_of_the_chain():
    node = spec.Resize(children={"pool": spec.AvgPool2d(kernel_size=3)}, stride=2)
    y = run(node)  # 6x5 to 2x1, then to 3x2
    pooled = X[:, :, :, :3].reshape(2, 3, 2, 3, 3).mean((3, 4))
    close(y, pooled[:, :, [0, 0, 1], None].repeat(2, 3))


def test_merges():
    relu, tanh = np.maximum(X, 0), np.tanh(X)
    total, weighted, softmax, joined = (
        spec.Parallel(children=BRANCHES, merge=merge, weights=(0.25, -2.0) if merge == "weighted" else None)
        for merge in ("sum", "weighted", "softmax", "concat")
    )
    close(run(total), relu + tanh)
    close(run(weighted), 0.25 * relu - 2 * tanh)
    close(run(softmax, arrays={"alpha": np.log([3.0, 1.0])}), 0.75 * relu + 0.25 * tanh)
    close(run(joined), np.concatenate([relu, tanh], 1))


@pytest.mark.parametrize("x", [X, RANDOM.normal(size=(4, 3))], ids=["map", "vector"])
def test_dynamic_merge(x):
    pool = {"pool": spec.GlobalPool()} if x.ndim == 4 else {}
    fc = spec.Linear(in_features=3, out_features=2)
    weighting = spec.Sequential(children={**pool, "flatten": spec.Flatten(), "fc": fc})
    weight, bias = RANDOM.normal(size=(2, 3)), np.array([1.0, -0.5])
    node = spec.Parallel(children=BRANCHES, merge="dynamic", weighting=weighting)
    y = run(node, x, {"weighting.fc.weight": weight, "weighting.fc.bias": bias})
    values = x.reshape(len(x), 3, -1).mean(2) @ weight.T + bias
    first, second = values.T.reshape(2, len(x), *[1] * (x.ndim - 1))
    close(y, first * np.maximum(x, 0) + second * np.tanh(x))


NORM = {"weight": [1.0, 2, 3], "bias": [0.0, 1, 2], "running_mean": [5.0, 6, 7], "running_var": [1.0, 4, 9]}


def lists(arrays):
    return {name: np.asarray(array).tolist() for name, array in arrays.items()}


@pytest.mark.parametrize("momentum", [0.1, 0.75, 0.0, 1.0])
def test_batch_norm_in_training_mode(momentum):
    reference = ReferenceModel(spec.BatchNorm2d(num_features=3, momentum=momentum, eps=1e-3), NORM)
    y = reference(X, training=True)
    for c in range(3):
        values = X[:, c]
        scale = NORM["weight"][c] / math.sqrt(values.var() + 1e-3)
        np.testing.assert_allclose(y[:, c], (values - values.mean()) * scale + NORM["bias"][c], rtol=1e-12, atol=1e-12)
        for name, new in [("running_mean", values.mean()), ("running_var", values.var(ddof=1))]:
            expected = (1 - momentum) * NORM[name][c] + momentum * new
            assert reference.arrays[name][c] == pytest.approx(expected, rel=1e-13)


def test_batch_norm_in_inference_mode_and_the_given_arrays():
    given = {name: np.array(values, np.float32) for name, values in NORM.items()}
    reference = ReferenceModel(spec.BatchNorm2d(num_features=3), given)
    close(reference(X)[:, 1], 2 * (X[:, 1] - 6) / math.sqrt(4 + 1e-5) + 1)
    assert lists(reference.arrays) == NORM
    reference(X, training=True)
    assert lists(given) == NORM
    assert {array.dtype.name for array in reference.arrays.values()} == {"float64"}
    assert {dtype.name for dtype in reference.dtypes.values()} == {"float32"}


def test_a_batch_of_no_images_does_not_change_the_statistics():
    model = build("maam_digits", seed=0)
    before = lists(model.arrays)
    assert model(np.zeros((0, 1, 8, 8)), training=True).shape == (0, 10)
    assert lists(model.arrays) == before
    assert build("rnn", seed=0)(np.zeros((0, 3, 32, 32))).shape == (0, 10)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"running_mean": None}, "missing: running_mean"),
        ({"more": np.zeros(2)}, "unexpected: more"),
        ({"bias": np.zeros(1)}, r"wrong shape: bias \(1,\) instead of \(3,\)"),
        ({"running_var": [1, -1, 1]}, "negative variances in running_var"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    node = spec.BatchNorm2d(num_features=3)
    whole = {p.name: np.ones(p.shape) for p in node.parameters()} | arrays
    with pytest.raises(WeightsError, match=f"ReferenceModel: .*{message}"):
        ReferenceModel(node, {name: array for name, array in whole.items() if array is not None})


def test_dropout_acts_only_in_training_mode():
    reference = ReferenceModel(spec.Dropout(p=0.5), {})
    assert reference(X).tolist() == X.tolist()
    first, second = reference(X, training=True), reference(X, training=True)
    assert set(np.unique(first / X)) == {0.0, 2.0}
    assert first.tolist() != second.tolist()
    assert first.tolist() == ReferenceModel(spec.Dropout(p=0.5), {})(X, training=True).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_are_float64(dtype):
    x = X[:, :1, :4, :4].astype(dtype)
    reference = build(spec.maam(1, 4, num_agents=2), seed=1)
    y = reference(x)
    assert y.dtype == np.float64
    assert y.tolist() == reference(x.astype(np.float64)).tolist()
    assert reference(x.tolist()).dtype == np.float64


def test_kinds_and_paths_that_do_not_exist(monkeypatch):
    with pytest.raises(SpecError, match=r"no layer 'agents\.7' in this spec: '7' is not one of"):
        build("maam_digits", seed=0).run("agents.7", X)
    monkeypatch.delitem(model.LEAVES, spec.Dropout)
    with pytest.raises(SpecError, match=r"maam\.reference has no primitive of kind 'dropout'"):
        build(spec.Sequential(children={"a": spec.Dropout(p=0.5)}))


def test_build_draws_the_weights_of_the_seed():
    node = spec.maam(4)
    assert lists(build(node, seed=3).arrays) == lists(spec.draw(node.parameters(), 3))
    assert lists(build(node).arrays) != lists(build(node).arrays)
    assert repr(build("maam_digits", seed=0)) == "ReferenceModel(Model, 49,117 parameters)"
    with pytest.raises(PresetError):
        build("maam_digit")


@pytest.mark.parametrize("training", [False, True])
def test_the_observer_sees_every_layer_and_run_computes_one(training):
    reference, seen = build(spec.maam(1, 4, fusion="dynamic", scales=(1, 2, 1)), seed=0), []
    reference.observer = lambda *given: seen.append(given)
    x = RANDOM.random((2, 1, 8, 8))
    y = reference(x, training=training)
    assert [path for path, _, _ in seen] == [path for path, _ in reference.spec.walk()]
    assert (seen[-1][0], seen[-1][1].tolist()) == ("", x.tolist())
    assert seen[-1][2] is y
    shapes = {path: (given, out) for path, _, given, out in reference.spec.summary((1, 8, 8))}
    assert {path: (a.shape[1:], b.shape[1:]) for path, a, b in seen} == shapes
    alone = build(reference.spec, seed=0)
    for path, x, y in seen:
        assert alone.run(path, x, training).tolist() == y.tolist()


WRONG = [np.zeros(shape) for shape in ((2, 8, 8), (2, 3, 8, 8), (2, 1, 8, 9))]
WRONG += [np.zeros((2, 1, 8, 8), dtype) for dtype in (np.uint8, bool, complex)]


@pytest.mark.parametrize("x", [*WRONG, "image", None])
def test_errors_for_wrong_inputs_are_those_of_the_spec(x):
    reference, array = build("maam_digits", seed=0), np.asarray(x)
    check = spec.input_rule(reference.spec).check
    assert error_of(ShapeError, reference, x) == error_of(ShapeError, check, array.shape, str(array.dtype))
