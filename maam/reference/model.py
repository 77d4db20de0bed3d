"""Weights files in and out of referees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from maam import spec as specs
from maam.errors import SpecError, WeightsError
from maam.reference import functions as F  # noqa: N812
from maam.spec.inputs import check_training_batch
from maam.spec.presets import resolve
from maam.weights import Mismatch, match
from maam.weights.exchange import PathLike, Slot, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES

Array = np.ndarray[Any, Any]
Observer = Callable[[str, Array, Array], None]
"""Called with (path, input, output) after each layer has run."""


class ReferenceModel:
    """A spec with its arrays, callable as (x, training=False).

    Attributes:
        spec: the spec.
        arrays: parameters and running statistics by canonical name, float64. In training mode a call moves the
            running statistics, as it does in the frameworks.
        dtypes: the dtype that each array came in, and is saved in.
        observer: where set, called after each layer.

    Raises:
        WeightsError: the arrays are not those of the spec, by name and shape, or not finite, or a variance is negative.
    """

    def __init__(self, node: specs.Node, arrays: Mapping[str, npt.ArrayLike]) -> None:
        self.spec = node
        given, _ = match(node, {name: np.asarray(array) for name, array in arrays.items()}, source="ReferenceModel")
        self.arrays = {name: array.astype(np.float64) for name, array in given.items()}
        self.dtypes = {name: array.dtype for name, array in given.items()}
        self.rule = specs.input_rule(node)
        self.observer: Observer | None = None
        self._generator = np.random.default_rng(0)

    def __call__(self, x: npt.ArrayLike, training: bool = False) -> Array:
        """The output, float64, for a batch (N, C, H, W) or (N, features) of any floating-point dtype.

        Raises:
            ShapeError: the input does not fit the spec.
        """
        array = np.asarray(x)
        self.rule.check(array.shape, str(array.dtype))
        if training:
            check_training_batch(self.spec, array.shape)
        return self._run(self.spec, "", array.astype(np.float64), training)

    def __repr__(self) -> str:
        return f"ReferenceModel({type(self.spec).__name__}, {self.spec.num_parameters:,} parameters)"

    def run(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the one layer at a canonical path, for its input `x`."""
        return self._run(self.spec.at(path), path, x, training)

    def _run(self, node: specs.Node, path: str, x: Array, training: bool) -> Array:
        if isinstance(node, (specs.Sequential, specs.Parallel)):
            y = self._run_container(node, path, x, training)
        else:
            y = LEAVES[type(node)](self, node, path, x, training)
        if self.observer is not None:
            self.observer(path, x, y)
        return y

    def _run_container(self, node: specs.Node, path: str, x: Array, training: bool) -> Array:
        if isinstance(node, specs.Parallel):
            outputs = [self._run(child, _join(path, name), x, training) for name, child in node.children.items()]
            return self._merge(node, path, x, outputs, training)
        y = x
        for name, child in node.nodes.items():
            y = self._run(child, _join(path, name), y, training)
        return COMBINATIONS[type(node)](node, x, y)

    def _merge(self, node: specs.Parallel, path: str, x: Array, outputs: list[Array], training: bool) -> Array:
        if node.merge in ("concat", "stack"):
            return np.concatenate(outputs, 1 if node.merge == "concat" else 2)
        weights: Any = (1.0,) * len(outputs)
        if node.merge == "weighted":
            weights = node.weights
        elif node.merge == "softmax":
            weights = F.softmax(self.arrays[_join(path, "alpha")], 0)
        elif node.weighting is not None:
            values = self._run(node.weighting, _join(path, "weighting"), x, training)  # (N, branches)
            weights = values.T.reshape(values.T.shape + (1,) * (outputs[0].ndim - 1))
        return reduce(np.add, (weight * output for weight, output in zip(weights, outputs, strict=True)))

    def _own(self, path: str, *names: str) -> list[Any]:
        return [self.arrays.get(_join(path, name)) for name in names]

    def _batch_norm(self, node: specs.BatchNorm2d, path: str, x: Array, training: bool) -> Array:
        weight, bias, running_mean, running_var = self._own(path, "weight", "bias", "running_mean", "running_var")
        if not training:
            return F.batch_norm(x, weight, bias, running_mean, running_var, node.eps)
        if x.size == 0:  # no image says nothing of the mean
            return x
        mean, biased, unbiased = F.batch_statistics(x)
        running_mean += node.momentum * (mean - running_mean)
        running_var += node.momentum * (unbiased - running_var)
        return F.batch_norm(x, weight, bias, mean, biased, node.eps)

    def _dropout(self, node: specs.Dropout, path: str, x: Array, training: bool) -> Array:
        return F.dropout(x, node.p, self._generator) if training else x


Leaf = Callable[[ReferenceModel, Any, str, Array, bool], Array]
LEAVES: dict[type[specs.Node], Leaf] = {
    specs.Conv2d: lambda self, node, path, x, _: F.conv2d(x, node, *self._own(path, "weight", "bias")),
    specs.Linear: lambda self, node, path, x, _: F.linear(x, *self._own(path, "weight", "bias")),
    specs.RNN: lambda self, node, path, x, _: F.rnn(x, *self._own(path, *(p.name for p in node.own_parameters()))),
    specs.BatchNorm2d: ReferenceModel._batch_norm,
    specs.Activation: lambda self, node, path, x, _: F.activation(x, node),
    specs.MaxPool2d: lambda self, node, path, x, _: F.max_pool2d(x, node.kernel_size, node.step, node.padding),
    specs.AvgPool2d: lambda self, node, path, x, _: F.avg_pool2d(x, node.kernel_size, node.step),
    specs.GlobalPool: lambda self, node, path, x, _: F.global_pool(x, node),
    specs.Flatten: lambda self, node, path, x, _: x.reshape(len(x), math.prod(x.shape[1:])),
    specs.Unflatten: lambda self, node, path, x, _: x[:, :, None, None],
    specs.Dropout: ReferenceModel._dropout,
    specs.Identity: lambda self, node, path, x, _: x,
}
COMBINATIONS: dict[type[specs.Node], Callable[[Any, Array, Array], Array]] = {
    specs.Sequential: lambda node, x, y: y,
    specs.Model: lambda node, x, y: y,
    specs.Residual: lambda node, x, y: x + y,
    specs.Scale: lambda node, x, y: x * y,
    specs.Resize: lambda node, x, y: F.resize(y, x.shape[2] // node.stride, x.shape[3] // node.stride),
}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def build(spec: specs.Node | str, *, seed: int | None = None, **options: Any) -> ReferenceModel:
    """The referee of a spec or of a preset's name, with its `options`; weights are drawn from `seed`.

    Raises:
        SpecError: `spec` is neither, a node is of a kind that the referee does not have, or the seed or an option is
            invalid.
        PresetError: there is no preset of that name, or it has no such option.
    """
    node = resolve(spec, **options)
    for _, inner in node.walk():
        if type(inner) not in LEAVES and type(inner) not in COMBINATIONS and not isinstance(inner, specs.Parallel):
            raise SpecError(f"maam.reference has no primitive of kind {inner.kind!r}")
    seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
    return ReferenceModel(node, specs.draw(node.parameters(), seed))


def save_weights(model: ReferenceModel, path: PathLike) -> None:
    """Write the arrays, in the dtypes that they came in, and the spec to one file.

    Raises:
        WeightsError: an array is not finite, or the file cannot be written.
    """
    arrays = {name: array.astype(model.dtypes[name]) for name, array in model.arrays.items()}
    save_model(path, model, arrays)


def load_weights(model: ReferenceModel, path: PathLike, strict: bool = True, skip: Sequence[str] = ()) -> Mismatch:
    """Copy a file's arrays into a referee, rounded to its dtypes; returns the names that stand on one side only.

    Args:
        model: a model or layer of maam.
        path: a weights file.
        strict: whether every name must stand on both sides, and the file's spec compute the same as the model's.
        skip: names of layers, such as "classifier", that stay as they are: what the file has for them is left out.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, or the file's spec computes something else; or
            `skip` names no layer.
    """
    return load_into(model, path, strict, skip, _slots, _write)


def load(
    path: PathLike, dtype: npt.DTypeLike = None, *, num_classes: int | None = None, seed: int = 0
) -> ReferenceModel:
    """The referee that a file describes; `dtype` None keeps the file's dtypes for saving (it computes in float64).

    Args:
        path: a weights file.
        dtype: the dtype of all arrays; None keeps the file's.
        num_classes: where it is not the file's, the last layer is replaced by one of so many logits, for training
            on other classes; all others keep their weights.
        seed: draws that new layer, bit-identical in every framework.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
        SpecError: the file's model has no last layer that gives logits, or `num_classes` or `seed` is invalid.
    """
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:
        raise WeightsError(f"dtype: expected a NumPy dtype or its name, got {dtype!r}") from None
    known = {dtype: dtype for dtype in DTYPES.values()}
    return ReferenceModel(*read_whole(path, numpy_dtype(wanted, known), num_classes, seed))


def _write(model: ReferenceModel, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for name, array in arrays.items():
        model.arrays[name][...] = array.astype(np.float64)


def _slots(model: ReferenceModel) -> dict[str, Slot]:
    return {name: Slot(array.shape, model.dtypes[name]) for name, array in model.arrays.items()}
