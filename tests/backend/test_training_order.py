"""A trainer runs max pooling before the ReLU in front of it: all results stay the same bit for bit."""

import importlib

import numpy as np
import pytest

from maam import spec
from maam.backend.layers import training_order
from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Objective

RELU = spec.Activation(function="relu")
PADDED = {
    "conv": spec.Conv2d(in_channels=1, out_channels=4, kernel_size=3, padding=1),
    "act": RELU,
    "pool": spec.MaxPool2d(kernel_size=3, stride=2, padding=1),
    "flatten": spec.Flatten(),
    "fc": spec.Linear(in_features=64, out_features=10),
}
MODELS = {
    "maam": spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16, pool=(2, 2), num_agents=1),
    "padded": spec.Model(name="padded", input_shape=(1, 8, 8), children=PADDED),
}
"""Networks in which max pooling follows a ReLU."""
SPEC_ORDER, TRAINED_ORDER = ["ReLU", "MaxPool2d"], ["MaxPool2d", "ReLU"]
CHAINS = [
    (SPEC_ORDER, TRAINED_ORDER),
    (TRAINED_ORDER, TRAINED_ORDER),
    (["GELU", "MaxPool2d"], ["GELU", "MaxPool2d"]),
    (["GELU", *SPEC_ORDER, *SPEC_ORDER], ["GELU", *TRAINED_ORDER, *TRAINED_ORDER]),
]


def make_batch():
    """Return images with many equal pixels, so that many maxima tie, and labels."""
    generator = np.random.default_rng(4)
    x = generator.integers(0, 3, (32, 1, 8, 8)).astype(np.float32) / 2
    return x, generator.integers(0, 10, 32).astype(np.int32)


def runner_of(runtime, model, **options):
    options = options if runtime.name == "torch" else {"graph": runtime.mode == "graph"}
    return importlib.import_module(f"maam.{runtime.name}.runner").Runner(model, **options)


def restore_order(runtime, model):
    """Restore the order of the spec in a model that a trainer has."""
    for module in runtime.modules(model):
        if hasattr(module, "pool_first") and runtime.name == "torch":
            assert module._pools_first
            module._pools_first = False
        elif hasattr(module, "pool_first"):
            module.cell_list = [module._cells[name] for name in module.spec.nodes]


def trained(runtime, name, in_spec_order, **options):
    x, labels = make_batch()
    runner = runner_of(runtime, runtime.maam.build(MODELS[name], seed=0), **options)
    trainer = runner.trainer(Optimizer(lr=0.1, nesterov=True))
    if in_spec_order:
        restore_order(runtime, runner.model)
    losses = [trainer.step(x, labels, 0.1) for _ in range(3)]
    return losses, runner.read_arrays(), runner.forward(x)


RUNTIMES = [("torch", {"channels_last": last}) for last in (False, True)]
RUNTIMES += [(f"mindspore {mode}", {}) for mode in ("pynative", "graph")]


@pytest.mark.slow_in("graph")  # compiles for long
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("runtime", "options"), RUNTIMES, indirect=["runtime"])
def test_same_training(runtime, name, options):
    losses, *results = trained(runtime, name, False, **options)
    assert losses[-1] < losses[0]
    np.testing.assert_equal(trained(runtime, name, True, **options), (losses, *results))


@pytest.mark.parametrize(("chain", "expected"), CHAINS)
def test_the_order_of_a_chain(chain, expected):
    kinds = {name: type(name, (), {}) for name in ("ReLU", "MaxPool2d", "GELU")}
    found = training_order([kinds[name]() for name in chain], kinds["ReLU"], kinds["MaxPool2d"])
    assert [type(layer).__name__ for layer in found] == expected


def order(backend, chain, training=True):
    """Return the kinds of the activations and pooling layers of a chain, in the order in which they run."""
    if backend.name == "mindspore":
        layers = chain.cell_list
    else:
        layers, hook = [], backend.nn.modules.module.register_module_forward_hook
        with hook(lambda layer, *_: layers.append(layer)):
            backend.call(chain.train(training), make_batch()[0])
    kinds = [type(layer).__name__ for layer in layers]
    return [kind for kind in kinds if kind in ("ReLU", "MaxPool2d", "GELU")]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_of_a_trainer(backend, precision):
    """Mixed precision fills MindSpore's chains again, with casts around each batch norm."""
    model = backend.maam.build(MODELS["maam"], seed=0)
    agent = model.agents[0]
    assert order(backend, agent) == SPEC_ORDER * 2
    runner_of(backend, model).trainer(Optimizer(), Objective(precision=precision))
    assert order(backend, agent) == TRAINED_ORDER * 2
    if backend.name == "torch":
        assert order(backend, agent, training=False) == SPEC_ORDER * 2


def test_branches_are_not_a_chain(backend):
    branches = {"act": RELU, "pool": spec.MaxPool2d(kernel_size=3, stride=1, padding=1)}
    model = backend.maam.build(spec.Parallel(children=branches, merge="concat"))
    model.pool_first()
    assert order(backend, model) == SPEC_ORDER


def test_another_activation_keeps_its_place(backend):
    model = backend.maam.build(spec.Sequential(children={"act": RELU, "pool": spec.MaxPool2d(kernel_size=2)}))
    model.pool_first()
    assert order(backend, model) == TRAINED_ORDER
    model.act = backend.nn.GELU()
    for _ in range(2):
        assert order(backend, model) == ["GELU", "MaxPool2d"]
        model.pool_first()
