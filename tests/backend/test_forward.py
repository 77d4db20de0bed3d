"""Outputs and running statistics of layers and models against the NumPy reference, in every mode of every framework."""

import numpy as np
import pytest

from maam import spec
from maam.reference import build as build_reference
from tests.frameworks import VARIANTS

COSTLY = ("graph-depthwise", "graph-mean", "graph-kernels", "graph-pool", "graph-no_norm")
"""The variants that MindSpore's graph mode compiles in `make test-all` only."""
FUNCTIONS = ("relu6", "leaky_relu", "elu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "identity", "abs")
ACTS = {name: spec.Activation(function=name) for name in (*FUNCTIONS, "softmax")}
CONV = spec.Conv2d(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=2, dilation=2, groups=2)
CONV1D = spec.Conv1d(in_channels=1, out_channels=2, kernel_size=3, padding=1)
GATE = {
    "squeeze": spec.GlobalPool(function="max"),
    "conv": spec.Conv2d(in_channels=4, out_channels=4, kernel_size=1, groups=4),
    "act": spec.Activation(function="leaky_relu", negative_slope=0.3),
}
JOIN = {"a": spec.Identity(), "b": spec.AvgPool2d(kernel_size=1), "c": spec.Dropout(p=0.5)}
WEIGHTED = {"merge": "weighted", "weights": (0.7, 2)}
CHAINS = {
    "conv": {"conv": CONV},
    "max": {"pool": spec.MaxPool2d(kernel_size=3, stride=1, padding=1)},
    "average": {"pool": spec.AvgPool2d(kernel_size=2, stride=1)},
    "gate": {"gate": spec.Scale(children=GATE)},
    "skip": {"skip": spec.Residual(children={"act": ACTS["softmax"]})},
    "join": {"join": spec.Parallel(children=JOIN, merge="concat")},
    "sum": {"sum": spec.Parallel(children={"a": spec.GlobalPool(), "b": spec.GlobalPool(function="max")})},
    "weighted": {"weighted": spec.Parallel(children={"a": spec.Identity(), "b": ACTS["elu"]}, **WEIGHTED)},
    "vector": {"vector": spec.Flatten(), "fc": spec.Linear(in_features=256, out_features=3, bias=False)},
    "tokens": {"tokens": spec.Rearrange(pattern="c h w -> (h w) c"), "fc": spec.Linear(in_features=4, out_features=3)},
    "sequence": {"line": spec.Rearrange(pattern="c h w -> 1 (c h w)"), "conv": CONV1D},
    "repeat": {"repeat": spec.Rearrange(pattern="(g=2 c) h w -> c (g r=2) w h")},
    "norm": {"norm": spec.GroupNorm(num_groups=2, num_channels=4)},
    "pooled_norm": {"pool": spec.GlobalPool(), "norm": spec.GroupNorm(num_groups=4, num_channels=4)},
    "padded": {"pool": spec.AvgPool2d(kernel_size=3, stride=2, padding=1)},
    "regions": {"pool": spec.AdaptiveAvgPool2d(output_size=3)},
    "upwards": {"pool": spec.GlobalPool(axis="height"), "regions": spec.AdaptiveAvgPool2d(output_size=3)},
    "top": {"pool": spec.GlobalPool(), "top": spec.TopK(k=3)},
    **{name: {"act": ACTS[name]} for name in FUNCTIONS},
    **{f"softmax_{axis}": {"softmax": spec.Softmax(axis=axis)} for axis in ("channels", "height", "width", "spatial")},
    **{
        pool: {"pool": spec.GlobalPool(function=pool.split("_")[0], axis=pool.split("_")[1])}
        for pool in ("var_spatial", "avg_width", "max_height", "sum_width", "std_height")
    },
}
"""Chains with all primitives, for a map with 4 channels."""
FORMULA = (
    "a = gate(x) * weight + 1 / (x ** 2 + 1) ** 0.5 - (x * x + 2) ** -0.5; f = fold(a, 2); b = unfold(conv(f) / 2, 2);"
    "s = stack(a, turn(b)); c = first(s, a) - last(s, turn2(a));"
    "p = rows(a) @ columns(b); resize(pool(concat(a[0:2], c[2:4])), x) * scale(like(p, pool2(a)))"
)
LAYERS = {
    "gate": ACTS["sigmoid"],
    "conv": spec.Conv2d(in_channels=2, out_channels=2, kernel_size=3, padding=1),
    **dict.fromkeys(("turn", "turn2"), spec.Rearrange(pattern="c h w -> c w h")),
    "rows": spec.Rearrange(pattern="c h w -> 1 c (h w)"),
    "columns": spec.Rearrange(pattern="c h w -> 1 (h w) c"),
    "pool": spec.AvgPool2d(kernel_size=3),
    "pool2": spec.AdaptiveAvgPool2d(output_size=2),
    "scale": spec.GlobalPool(),
}
GRAPH = spec.Graph(children=LAYERS, formula=FORMULA, in_channels=4, arrays={"weight": ((4, 1, 1), 1.0)})
"""A formula with every operation."""


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def check(runtime, model, reference, x, training):
    """Compare one call; the running statistics must move in train mode, and only there."""
    before = runtime.read(model)
    close(runtime.call(runtime.train(model, training), x), reference(x, training=training))
    after = runtime.read(model)
    moved = {name for name, array in after.items() if not np.array_equal(array, before[name])}
    statistics = {p.name for p in model.spec.parameters() if not p.trainable}
    assert moved == (statistics if training else set())
    for name in statistics:
        np.testing.assert_allclose(after[name], reference.arrays[name], rtol=1e-5, atol=1e-6)


def scrambled(runtime, node):
    model = runtime.scramble(runtime.maam.build(node))
    return model, runtime.reference(model)


@pytest.mark.slow_in(*COSTLY)
@pytest.mark.parametrize("name", VARIANTS)
def test_variants(runtime, name, x):
    model, reference = scrambled(runtime, spec.maam(4, 8, **VARIANTS[name]))
    for training in (False, True, False):
        check(runtime, model, reference, x, training)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_array_matters(backend, name, x):
    """Or the comparison with the reference could not notice a wrong one."""
    _, reference = scrambled(backend, spec.maam(4, 8, **VARIANTS[name]))
    generator, expected = np.random.default_rng(3), reference(x)
    for path, array in reference.arrays.items():
        reference.arrays[path] = array + generator.uniform(0, 0.2, array.shape)
        assert np.abs(reference(x) - expected).max() > 1e-3, path
        reference.arrays[path] = array


@pytest.mark.parametrize("size", [(1, 7, 5), (3, 3, 11)], ids=str)
def test_odd_sizes(runtime, size):
    x = np.random.default_rng(2).normal(size=(size[0], 4, *size[1:])).astype(np.float32)
    check(runtime, *scrambled(runtime, spec.maam(4, 8, scales=(1, 2, 3))), x, False)


SEEDED = {
    "dynamic": spec.preset("maam_digits", fusion="dynamic", channels=8),
    "t_cnn": spec.preset("t_cnn", base="maam_digits", pool=(2, 2), channels=8),
    **{name: spec.preset(name, image_size=8) for name in ("cnn", "mlp", "rnn")},
}


@pytest.mark.parametrize("name", SEEDED)
def test_seeded_models(runtime, name):
    node, training = SEEDED[name], name in ("dynamic", "t_cnn")
    x = np.random.default_rng(3).uniform(size=(4, *node.input_shape)).astype(np.float32)
    check(runtime, runtime.maam.build(node, seed=4), build_reference(node, seed=4), x, training)


def test_a_formula(runtime, x):
    check(runtime, *scrambled(runtime, GRAPH), x, False)


def test_primitives(runtime, x):
    """One network computes them all, because graph mode compiles every network."""
    chains = {name: spec.Sequential(children={**chain, "flatten": spec.Flatten()}) for name, chain in CHAINS.items()}
    model, reference = scrambled(runtime, spec.Parallel(children=chains, merge="concat"))
    ends = np.cumsum([chain.output_shape(x.shape[1:])[0] for chain in chains.values()])[:-1]
    x = 4 * x  # beyond the bends of relu6
    found, expected = (np.split(y, ends, 1) for y in (runtime.call(runtime.train(model, False), x), reference(x)))
    for name, *pair in zip(chains, found, expected, strict=True):
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_two_layers_in_a_network(runtime, training, x):
    first, second = runtime.maam.MAAM(4, 8, num_agents=1), runtime.maam.MAAM(8, 4, num_agents=2, scales=(1, 2))
    layers, expected = [runtime.scramble(first), runtime.scramble(second)], x
    for layer in layers:
        expected = runtime.reference(layer)(expected, training=training)
    network = runtime.train(runtime.chain(*layers, runtime.nn.ReLU()), training)
    close(runtime.call(network, x), np.maximum(expected, 0))
