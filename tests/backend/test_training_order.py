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


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
class TestTorch:
    def shapes(self, backend, model, layer, training):
        seen = []
        with backend.at(model, layer).register_forward_hook(lambda *given: seen.append(tuple(given[-1].shape[1:]))):
            backend.call(model.train(training), make_batch()[0])
        return seen

    def test_hooks_see_the_order_in_train_mode_only(self, backend):
        model = backend.maam.build(MODELS["maam"], seed=0)
        assert self.shapes(backend, model, "agents.0.act1", True) == [(4, 8, 8)]
        runner_of(backend, model).trainer(Optimizer())
        assert self.shapes(backend, model, "agents.0.act1", True) == [(4, 4, 4)]
        assert self.shapes(backend, model, "agents.0.act1", False) == [(4, 8, 8)]

    def test_another_activation_keeps_its_place(self, backend):
        model = backend.maam.build(MODELS["padded"], seed=0)
        model.act = backend.nn.GELU()
        runner_of(backend, model).trainer(Optimizer())
        assert self.shapes(backend, model, "act", True) == [(4, 8, 8)]


@pytest.mark.parametrize("backend", ["mindspore"], indirect=True)
class TestMindSpore:
    @staticmethod
    def order(cell):
        kinds = [type(inner).__name__ for inner in cell.cell_list]
        return [kind for kind in kinds if kind in ("ReLU", "MaxPool2d", "GELU")]

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_of_a_trainer(self, backend, precision):
        """Mixed precision fills the chains again, with casts around each batch norm."""
        model = backend.maam.build(MODELS["maam"], seed=0)
        assert self.order(model.agents.cell_list[0]) == SPEC_ORDER * 2
        runner_of(backend, model).trainer(Optimizer(), Objective(precision=precision))
        for agent in model.agents.cell_list:
            assert self.order(agent) == TRAINED_ORDER * 2

    def test_branches_are_not_a_chain(self, backend):
        branches = {"act": RELU, "pool": spec.MaxPool2d(kernel_size=3, stride=1, padding=1)}
        model = backend.maam.build(spec.Parallel(children=branches, merge="concat"))
        model.pool_first()
        assert self.order(model) == SPEC_ORDER

    def test_another_activation_keeps_its_place(self, backend):
        model = backend.maam.build(spec.Sequential(children={"act": RELU, "pool": spec.MaxPool2d(kernel_size=2)}))
        model.pool_first()
        assert self.order(model) == TRAINED_ORDER
        model.act = backend.nn.GELU()
        for _ in range(2):
            assert self.order(model) == ["GELU", "MaxPool2d"]
            model.pool_first()
