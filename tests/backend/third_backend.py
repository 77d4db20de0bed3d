"""A small backend in float32 NumPy: the proof that the contract names all that a framework must provide.

It implements the primitives of MAAM, SE and CBAM, and imports only the spec, the weights file and the contract.
"""

from contextlib import contextmanager

import numpy as np

from maam.backend import BackendEntry, Capability
from maam.spec import Node, draw, preset
from maam.weights import read_weights, write_weights

MODES = {"third": frozenset({Capability.SINGLE_LAYERS})}
ENTRY = BackendEntry(
    name="third", title="Third", location="third_backend:BACKEND", package="numpy", extra="", modes=MODES
)


class Network:
    """A spec with float32 arrays by canonical name."""

    def __init__(self, spec, arrays):
        self.spec = spec
        self.arrays = {name: np.array(array, np.float32) for name, array in arrays.items()}

    def run(self, node, path, x, training):
        below = {name: f"{path}.{name}".lstrip(".") for name in node.nodes}
        if node.kind == "parallel":
            branches = [self.run(child, below[name], x, training) for name, child in node.children.items()]
            return self.merge(node, path, branches)
        if node.nodes:
            y = x
            for name, child in node.nodes.items():
                y = self.run(child, below[name], y, training)
            return {"scale": lambda: x * y, "residual": lambda: x + y}.get(node.kind, lambda: y)()
        return getattr(self, node.kind)(node, path, x, training)

    def merge(self, node, path, branches):
        if node.merge in ("concat", "stack"):
            return np.concatenate(branches, 1 if node.merge == "concat" else 2)
        weights = {"weighted": node.weights, "sum": [1] * len(branches)}.get(node.merge)
        if node.merge == "softmax":
            powers = np.exp(self.array(path, "alpha") - self.array(path, "alpha").max())
            weights = powers / powers.sum()
        return sum(np.float32(weight) * branch for weight, branch in zip(weights, branches, strict=True))

    def array(self, path, name):
        return self.arrays[f"{path}.{name}".lstrip(".")]

    def conv2d(self, node, path, x, _):
        assert node.groups == node.dilation == 1
        sides = ((0, 0), (0, 0), (node.padding,) * 2, (node.padding,) * 2)
        window = (node.kernel_size,) * 2
        views = np.lib.stride_tricks.sliding_window_view(np.pad(x, sides), window, axis=(2, 3))
        views = views[:, :, :: node.stride, :: node.stride]  # (N, C, H, W, k, k)
        y = np.einsum("nchwij,ocij->nohw", views, self.array(path, "weight"), optimize=True)
        return y + self.array(path, "bias")[:, None, None] if node.bias else y

    def linear(self, node, path, x, _):
        y = x @ self.array(path, "weight").T
        return y + self.array(path, "bias") if node.bias else y

    def batch_norm2d(self, node, path, x, training):
        mean, var = self.array(path, "running_mean"), self.array(path, "running_var")
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            unbiased = x.var((0, 2, 3), ddof=1)
            for name, batch in (("running_mean", mean), ("running_var", unbiased)):
                own = self.array(path, name)
                own += np.float32(node.momentum) * (batch - own)
        scale = self.array(path, "weight") / np.sqrt(var + np.float32(node.eps))
        return (x - mean[:, None, None]) * scale[:, None, None] + self.array(path, "bias")[:, None, None]

    def max_pool2d(self, node, path, x, _):
        views = np.lib.stride_tricks.sliding_window_view(x, (node.kernel_size,) * 2, axis=(2, 3))
        return views[:, :, :: node.step, :: node.step].max((-2, -1))

    def global_pool(self, node, path, x, _):
        axes = (2, 3) if node.axis == "spatial" else (1,)
        return {"avg": x.mean, "max": x.max, "sum": x.sum}[node.function](axes, keepdims=True)

    def activation(self, node, path, x, _):
        return {"relu": lambda: np.maximum(x, 0), "sigmoid": lambda: 1 / (1 + np.exp(-x))}[node.function]()

    def flatten(self, node, path, x, _):
        return x.reshape(len(x), -1)

    def unflatten(self, node, path, x, _):
        return x[:, :, None, None]

    def identity(self, node, path, x, _):
        return x


class Runner:
    """A network, driven as the contract says."""

    name = "third"
    capabilities = MODES["third"]

    def __init__(self, model):
        self.model, self.spec = model, model.spec

    def read_arrays(self):
        return {name: array.copy() for name, array in self.model.arrays.items()}

    def write_arrays(self, arrays):
        self.model.arrays.update({name: np.array(array, np.float32) for name, array in arrays.items()})

    @contextmanager
    def preserve_state(self):
        arrays = self.read_arrays()
        yield
        self.write_arrays(arrays)

    def forward(self, x, training=False):
        return self.forward_layer("", x, training)

    def forward_layer(self, path, x, training=False):
        return self.model.run(self.spec.at(path), path, np.asarray(x, np.float32), training)

    def clone_with(self, spec, arrays, dtype="float32"):
        return Runner(Network(spec, arrays))

    def gradients(self, x, cotangent):
        raise NotImplementedError

    def trainer(self, optimizer, objective=None):
        raise NotImplementedError


class ThirdBackend:
    """Build, load, save and run."""

    name = "third"

    def build(self, spec, *, seed=None):
        node = spec if isinstance(spec, Node) else preset(spec)
        return Network(node, draw(node.parameters(), 0 if seed is None else seed))

    def load(self, path):
        return Network(*read_weights(path))

    def save_weights(self, model, path):
        write_weights(path, model.spec, model.arrays)

    def make_runner(self, model, mode=None):
        return Runner(model)


BACKEND = ThirdBackend()
