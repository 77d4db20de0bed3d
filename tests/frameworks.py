"""Helpers of the tests that every framework must pass: one object for each framework, with the same methods."""

import importlib
import importlib.util
import math
from contextlib import AbstractContextManager

import numpy as np
import pytest

from maam import reference, spec
from maam.spec import Role

VARIANTS = {
    "softmax": {},
    "dynamic": {"fusion": "dynamic", "num_agents": 2},
    "scales": {"scales": (2, 1, 3), "reduce": False},
    "depthwise": {"depthwise": True, "num_agents": 2},
    "mean": {"fusion": "mean", "num_agents": 2},
    "kernels": {"kernel_sizes": (1, 5), "num_agents": 2},
    "pool": {"pool": (2, 2), "scales": (1, 2), "num_agents": 2},
    "no_norm": {"norm_layer": "identity", "act_layer": "gelu", "num_agents": 2},
}
"""The arguments of MAAM for each kind of graph."""


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Run in an empty folder: MindSpore leaves `rank_0` of a failed compilation, `rewritten_network` of O1."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small():
    return spec.maam_classifier(channels=8, hidden_features=16, in_channels=1, image_size=8, num_classes=3)


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


class Framework(AbstractContextManager):
    """What the tests need of a framework. Arrays go in and come out as NumPy arrays."""

    name: str
    mode = ""
    method: str
    starts_in_training: bool
    of_nn: tuple[str, ...]
    """The base class of layers, a linear layer, hard swish and a chain of layers."""

    def __init__(self):
        own = f"maam.{self.name}"
        modules = (own, f"{self.name}.nn", f"{own}.arrays", f"{own}.layers")
        self.maam, self.nn, self.arrays, self.layers = map(importlib.import_module, modules)
        self.module, self.linear, self.hard_swish, self.chain = (getattr(self.nn, name) for name in self.of_nn)

    def __exit__(self, *_):
        """Restore the mode of the process, which MindSpore's `__enter__` selects."""

    def dtype(self, name):
        return getattr(importlib.import_module(self.name), name)

    def read(self, model):
        return self.arrays.read_arrays(model)

    def write(self, model, arrays):
        self.arrays.write_arrays(model, arrays)

    def call(self, model, x):
        return self.numpy(model(self.tensor(x)))

    def set(self, model, path, layer):
        parent, _, name = path.rpartition(".")
        setattr(self.at(model, parent), name, layer)

    def kinds(self, model):
        return [type(module) for module in self.modules(model)]

    def scramble(self, model, least_norm_weight=0.5):
        """Give all arrays arbitrary values: the initial ones (alpha 0, mean 0, variance 1) would hide a lost array."""
        generator, arrays = np.random.default_rng(5), {}
        least = {Role.RUNNING_VAR: 0.5, Role.NORM_WEIGHT: least_norm_weight}
        for p in model.spec.parameters():
            low = least.get(p.role, -0.5)
            arrays[p.name] = generator.uniform(low, low + 1, p.shape).astype(np.float32)
        self.write(model, arrays)
        return model

    def reference(self, model):
        return reference.ReferenceModel(model.spec, self.read(model))

    def step(self, model, x, shape):
        """Return the output, of a shape, and all gradients by name; the loss weights every output differently."""
        weights = np.linspace(-1, 2, math.prod(shape)).reshape(shape).astype(np.float32)
        return {name: self.numpy(t) for name, t in self._step(model, self.tensor(x), self.tensor(weights)).items()}


class Torch(Framework):
    name, method, starts_in_training = "torch", "forward", True
    of_nn = ("Module", "Linear", "Hardswish", "Sequential")

    def __init__(self):
        super().__init__()
        self.torch = importlib.import_module("torch")

    def tensor(self, x):
        return self.torch.as_tensor(x)

    def numpy(self, tensor):
        return tensor.detach().numpy()

    def train(self, model, training=True):
        return model.train(training)

    def modules(self, model):
        return list(model.modules())

    def parameters(self, model):
        return dict(model.named_parameters())

    def at(self, model, path):
        return model.get_submodule(path)

    def state(self, model):
        return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}

    def _step(self, model, x, weights):
        model.zero_grad()
        x = x.clone().requires_grad_()
        y = model(x)
        (y * weights).sum().backward()
        return {"output": y, "input": x.grad, **{name: p.grad for name, p in model.named_parameters()}}


class MindSpore(Framework):
    name, method, starts_in_training = "mindspore", "construct", False
    of_nn = ("Cell", "Dense", "HSwish", "SequentialCell")

    def __init__(self, mode="pynative"):
        super().__init__()
        self.mode = mode
        self.ms = importlib.import_module("mindspore")

    def __enter__(self):
        self._before = self.ms.get_context("mode")
        self.ms.set_context(mode=self.ms.GRAPH_MODE if self.mode == "graph" else self.ms.PYNATIVE_MODE)
        return self

    def __exit__(self, *_):
        self.ms.set_context(mode=self._before)

    def tensor(self, x):
        return x if isinstance(x, self.ms.Tensor) else self.ms.Tensor(np.asarray(x))

    def numpy(self, tensor):
        return tensor.asnumpy()

    def train(self, model, training=True):
        return model.set_train(training)

    def modules(self, model):
        return [cell for _, cell in model.cells_and_names()]

    def parameters(self, model):
        return dict(model.parameters_and_names())

    def at(self, model, path):
        for name in filter(None, path.split(".")):
            model = model._cells[name]
        return model

    def state(self, model):
        return {p.name: p.asnumpy().copy() for p in model.get_parameters()}

    def compile(self, function):
        return self.ms.jit(function) if self.ms.get_context("mode") == self.ms.GRAPH_MODE else function

    def _step(self, model, x, weights):
        def forward(x):
            y = model(x)
            return (y * weights).sum(), y

        parameters = model.trainable_params()
        function = self.ms.value_and_grad(forward, 0, self.ms.ParameterTuple(parameters), has_aux=True)
        (_, y), (dx, gradients) = self.compile(function)(x)
        return {"output": y, "input": dx, **{p.name: g for p, g in zip(parameters, gradients, strict=True)}}


def make(name):
    framework, _, mode = name.partition(" ")
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    return Torch() if framework == "torch" else MindSpore(mode or "pynative")
