"""Models in NumPy and float64: the reference for the outputs of all other backends."""

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
from maam.spec.node import join_path
from maam.spec.pooling import AXES
from maam.weights import Mismatch, match
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES
from maam.weights.pretrained import find_start
from maam.weights.sets import Selection

Array = np.ndarray[Any, Any]
Observer = Callable[[str, Array, Array], None]
"""A function that is called with (path, input, output) after each layer."""


class ReferenceModel:
    """Model in NumPy and float64.

    Args:
        node: the spec.
        arrays: parameters and running statistics by canonical name.

    Attributes:
        spec: the spec.
        arrays: parameters and running statistics by canonical name, float64. Calls in training mode update the running
            statistics.
        dtypes: the dtypes of the given arrays, in which `save_weights` saves them.
        observer: a function that is called with (path, input, output) after each layer, or None.

    Raises:
        WeightsError: names or shapes of the arrays do not match the spec, a value is not finite, or a variance is
            negative.

    Example:
        >>> import numpy as np
        >>> from maam import reference, spec
        >>> layer = spec.maam(3, 8, pool=2)
        >>> model = reference.ReferenceModel(layer, spec.draw(layer.parameters(), seed=0))
        >>> model(np.ones((1, 3, 8, 8), np.float32)).shape
        (1, 8, 4, 4)
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
        """Return the output, float64.

        Args:
            x: a batch (N, C, H, W) or (N, features), floating point.
            training: whether to use batch statistics and dropout, and update the running statistics.

        Raises:
            ShapeError: the spec does not accept this input.
        """
        array = np.asarray(x)
        self.rule.check(array.shape, str(array.dtype))
        if training:
            check_training_batch(self.spec, array.shape)
        return self._run(self.spec, "", array.astype(np.float64), training)

    def __repr__(self) -> str:
        return f"ReferenceModel({type(self.spec).__name__}, {self.spec.num_parameters:,} parameters)"

    def run(self, path: str, x: Array, training: bool = False) -> Array:
        """Return the output of the layer at a path, such as "classifier.fc1", for its input `x`."""
        return self._run(self.spec.at(path), path, x, training)

    def _run(self, node: specs.Node, path: str, x: Array, training: bool) -> Array:
        if isinstance(node, specs.Graph):
            y = self._run_graph(node, path, x, training)
        elif isinstance(node, (specs.Sequential, specs.Parallel)):
            y = self._run_container(node, path, x, training)
        else:
            y = LEAVES[type(node)](self, node, path, x, training)
        if self.observer is not None:
            self.observer(path, x, y)
        return y

    def _run_container(self, node: specs.Node, path: str, x: Array, training: bool) -> Array:
        if isinstance(node, specs.Parallel):
            outputs = [self._run(child, join_path(path, name), x, training) for name, child in node.children.items()]
            return self._merge(node, path, x, outputs, training)
        y = x
        for name, child in node.nodes.items():
            y = self._run(child, join_path(path, name), y, training)
        return COMBINATIONS[type(node)](node, x, y)

    def _run_graph(self, node: specs.Graph, path: str, x: Array, training: bool) -> Array:
        values = [x, *self._own(path, *node.arrays)]
        for step in node.steps:
            given = [values[index] for index in step.values]
            if step.op == "call":
                child = node.children[step.name]
                values.append(self._run(child, join_path(path, step.name), given[0], training))
            else:
                values.append(F.operate(step, given))
        return np.asarray(values[-1])

    def _merge(self, node: specs.Parallel, path: str, x: Array, outputs: list[Array], training: bool) -> Array:
        if node.merge in ("concat", "stack"):
            return np.concatenate(outputs, 1 if node.merge == "concat" else 2)
        weights: Any = (1.0,) * len(outputs)
        if node.merge == "weighted":
            weights = node.weights
        elif node.merge == "softmax":
            weights = F.softmax(self.arrays[join_path(path, "alpha")], 0)
        elif node.weighting is not None:
            values = self._run(node.weighting, join_path(path, "weighting"), x, training)  # (N, branches)
            weights = values.T.reshape(values.T.shape + (1,) * (outputs[0].ndim - 1))
        return reduce(np.add, (weight * output for weight, output in zip(weights, outputs, strict=True)))

    def _own(self, path: str, *names: str) -> list[Any]:
        return [self.arrays.get(join_path(path, name)) for name in names]

    def _batch_norm(self, node: specs.BatchNorm2d, path: str, x: Array, training: bool) -> Array:
        weight, bias, running_mean, running_var = self._own(path, "weight", "bias", "running_mean", "running_var")
        if not training:
            return F.batch_norm(x, weight, bias, running_mean, running_var, node.eps)
        if x.size == 0:  # without images there are no statistics
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
    specs.Conv1d: lambda self, node, path, x, _: F.conv1d(x, node, *self._own(path, "weight", "bias")),
    specs.Linear: lambda self, node, path, x, _: F.linear(x, *self._own(path, "weight", "bias")),
    specs.RNN: lambda self, node, path, x, _: F.rnn(x, *self._own(path, *(p.name for p in node.own_parameters()))),
    specs.BatchNorm2d: ReferenceModel._batch_norm,
    specs.GroupNorm: lambda self, node, path, x, _: F.group_norm(x, node, *self._own(path, "weight", "bias")),
    specs.Activation: lambda self, node, path, x, _: F.activation(x, node),
    specs.MaxPool2d: lambda self, node, path, x, _: F.max_pool2d(x, node.kernel_size, node.step, node.padding),
    specs.AvgPool2d: lambda self, node, path, x, _: F.avg_pool2d(x, node.kernel_size, node.step, node.padding),
    specs.AdaptiveAvgPool2d: lambda self, node, path, x, _: F.adaptive_avg_pool2d(x, node.output_size),
    specs.GlobalPool: lambda self, node, path, x, _: F.global_pool(x, node),
    specs.Softmax: lambda self, node, path, x, _: F.softmax(x, AXES[node.axis]),
    specs.TopK: lambda self, node, path, x, _: F.top_k(x, node.k),
    specs.Rearrange: lambda self, node, path, x, _: F.rearrange(x, node.pattern),
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


def build(
    spec: specs.Node | str, *, seed: int | None = None, pretrained: bool = False, **options: Any
) -> ReferenceModel:
    """Return a model with new weights.

    Args:
        spec: a spec or the name of a preset.
        seed: the seed of the weights, which are the same in every backend. Default: a random seed.
        pretrained: whether to load the weights that the package has for the preset, which were trained with its default
            options. With another `num_classes` the last layer is new, drawn from `seed` (0 by default), and the other
            layers keep their weights.
        **options: options of the preset.

    Raises:
        SpecError: `spec` is neither a spec nor a name, has an unknown kind of layer, or a value is invalid.
        PresetError: there is no such preset or option.
        WeightsError: `pretrained` is True, and the package has no weights for the preset or for these options.

    Example:
        >>> import numpy as np
        >>> from maam import reference
        >>> model = reference.build("maam_digits", seed=0)
        >>> model(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 10)
    """
    node, arrays = find_start(spec, options, seed, pretrained)
    for _, inner in node.walk():
        if type(inner) not in {*LEAVES, *COMBINATIONS, specs.Parallel, specs.Graph}:
            raise SpecError(f"maam.reference has no primitive of kind {inner.kind!r}; expected the layers of maam.spec")
    if arrays is not None:
        return ReferenceModel(node, arrays)
    seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
    return ReferenceModel(node, specs.draw(node.parameters(), seed))


def save_weights(model: ReferenceModel, path: PathLike) -> None:
    """Write spec and weights to a weights file, in the dtypes of the arrays that the model was built from.

    Args:
        model: a model.
        path: the file, usually with the suffix .safetensors.

    Raises:
        WeightsError: an array is not finite, or the file cannot be written.

    Example:
        >>> import os, tempfile
        >>> from maam import reference
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), path)
        ...     reference.load(path)
        ReferenceModel(Model, 49,117 parameters)
    """
    check_model(model, ReferenceModel, "maam.reference.ReferenceModel", "save_weights")
    save_model(path, model, _read)


def _read(model: ReferenceModel) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays in the dtypes that they came in."""
    return {name: array.astype(model.dtypes[name]) for name, array in model.arrays.items()}


def load_weights(
    model: ReferenceModel,
    path: PathLike,
    strict: bool = True,
    skip: Sequence[str] = (),
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Mismatch:
    """Copy the weights of a file into a model, rounded to the model's dtypes.

    Args:
        model: a model.
        path: a weights file, or another safetensors file.
        strict: whether all names must match and the file's spec, if it has one, must compute the same as the model's.
        skip: names of layers, such as "classifier", that keep their weights.
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Returns:
        The names that are only in the model or only in the file.

    Raises:
        WeightsError: the file is broken, an array has the wrong shape or is too large for the model's dtype, or `skip`
            names an unknown layer; with `strict`, also if a name is missing or unexpected, or the file's spec computes
            something else.

    Example:
        >>> import os, tempfile
        >>> from maam import reference
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), path)
        ...     reference.load_weights(reference.build("maam_digits", seed=1), path)
        Mismatch(missing=(), unexpected=())
    """
    check_model(model, ReferenceModel, "maam.reference.ReferenceModel", "load_weights")
    return load_into(model, path, strict, skip, _slots, _write, selection=Selection(key, prefix))


def load(
    path: PathLike,
    dtype: npt.DTypeLike | None = None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    spec: specs.Node | str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> ReferenceModel:
    """Return the model of a weights file. It computes in float64.

    Args:
        path: a weights file.
        dtype: the dtype to round the weights to. Default: the dtypes of the file.
        num_classes: the number of classes. If the file has another number, the last layer is replaced by a new one,
            and the others keep their weights.
        seed: the seed for the weights of the new layer, which are the same in every backend.
        spec: the name of a preset or a spec, for a safetensors file without a spec.
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
        SpecError: the file's model is not a classifier, or `num_classes` or `seed` is invalid.

    Example:
        >>> import os, tempfile
        >>> from maam import reference
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), path)
        ...     reference.load(path, num_classes=3).spec.num_classes
        3
    """
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:
        raise WeightsError(f"dtype: expected a NumPy dtype or its name, got {dtype!r}") from None
    known = {dtype: dtype for dtype in DTYPES.values()}
    found = numpy_dtype(wanted, known)
    selection = Selection(key, prefix)
    return ReferenceModel(*read_whole(path, found, num_classes, seed, spec=spec, selection=selection))


def _write(model: ReferenceModel, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for name, array in arrays.items():
        model.arrays[name][...] = array.astype(np.float64)


def _slots(model: ReferenceModel) -> dict[str, Slot]:
    return {name: Slot(array.shape, model.dtypes[name]) for name, array in model.arrays.items()}
