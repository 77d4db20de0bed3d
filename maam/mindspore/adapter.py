"""The adapter of a user's MindSpore cell for a port; see `maam.backend.adapter.ModelAdapter`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from maam.backend.adapter import (
    KINDS,
    OWN,
    Call,
    Inputs,
    Layer,
    Recorder,
    Setting,
    Slot,
    check_model,
    first_of,
    is_dropout,
    is_neutral,
    kind_of,
    with_first,
)
from maam.errors import PortingError
from maam.mindspore.arrays import DTYPES, NAMES, assign, from_numpy, to_numpy
from maam.mindspore.configuration import preserve_mode
from maam.mindspore.settings import read_settings, write_cell
from maam.mindspore.weights import write_records
from maam.spec import Role
from maam.spec.node import join_path
from maam.weights.file import write_safetensors

Array = np.ndarray[Any, Any]
_NORM_NAMES = {NAMES[Role.NORM_WEIGHT]: "weight", NAMES[Role.NORM_BIAS]: "bias"} | {
    NAMES[Role.RUNNING_MEAN]: "running_mean",
    NAMES[Role.RUNNING_VAR]: "running_var",
}
_OTHER_NAMES = {"embedding": {"embedding_table": "weight"}, "prelu": {"w": "weight"}}
"""PyTorch's names of arrays, by the kind of layer and by MindSpore's name of the array."""
_WRAPPERS = {"_OutputTo16", "_OutputTo32"}
"""The classes by which mixed precision wraps a cell, as `_backbone`."""


class ModelAdapter:
    """A cell in PyNative mode, because graph mode runs no hooks."""

    framework = "mindspore"
    remarks: tuple[str, ...] = ()

    def __init__(self, model: Any) -> None:
        check_model(model, nn.Cell, "mindspore.nn.Cell")
        self.model = model
        self.fixed = "a graph loaded from a file" if isinstance(model, nn.GraphCell) else ""
        level = getattr(model, "_amp_level", "O0")
        self.mixed = "" if level in ("", "O0") else f'auto_mixed_precision level "{level}"'
        self._paths = _cells_by_path(model)

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""
        if self.fixed:
            return _layers_of_graph(self._parameters())
        first: dict[int, str] = {}
        return [Layer(name, _kind(cell), _slots(name, cell, first)) for name, cell in self._cells()]

    def settings(self, name: str, inputs: Sequence[tuple[int, ...]]) -> dict[str, Setting]:
        """Return the settings of the layer `name`, by PyTorch's names of arguments."""
        cell = _holder(self._paths[name])
        flags = cell.get_flags()
        precision = "float16" if flags.get("fp16") else "bfloat16" if flags.get("bf16") else "float32"
        return {**read_settings(_kind(cell), cell, inputs), "precision": Setting(precision, precision)}

    def write_layer(self, name: str, values: Mapping[str, Any], inputs: Sequence[tuple[int, ...]] = ()) -> str:
        """Return the expression that builds the layer `name` with other values of some settings; "" if unknown."""
        cell = self._paths[name]
        holder = _holder(cell)
        written = write_cell(_kind(cell), holder, values, inputs)
        return written if holder is cell else written.replace(type(holder).__name__, type(cell).__name__, 1)

    def build(self, expression: str) -> ModelAdapter:
        """Return the adapter of a new layer from the expression of `write_layer`."""
        return ModelAdapter(eval(expression, {"nn": nn}))

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return copies of the arrays of these names, or of all layers."""
        own = self._parameters()
        return {name: to_numpy(own[name]) for name in (own if names is None else names)}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        own = self._parameters()
        for name, array in arrays.items():
            assign(own[name], array)

    def commit(self) -> None:
        """Do nothing: the adapter works on the user's cell."""

    def forward(self, inputs: Inputs, training: bool = False) -> Array:
        """Return the output; train mode updates the running statistics, and dropout is off."""
        with self._mode(training):
            return to_numpy(self._output(self._tensors_of(inputs)))

    def record(
        self, inputs: Inputs, training: bool = False, replaced: Mapping[tuple[str, int], Array] | None = None
    ) -> tuple[Array, list[Call]]:
        """Return the output, and the calls of all layers in the order of execution."""
        recorder = Recorder(Tensor, to_numpy, replaced)
        with _hooks([] if self.fixed else self._cells(), recorder):
            output = self.forward(inputs, training)
        return output, recorder.calls

    def run_layer(
        self, name: str, inputs: Inputs, training: bool = False, options: Mapping[str, Any] | None = None
    ) -> Array:
        """Return the output of the layer `name`, or the first tensor of several, for inputs of this layer."""
        layer = self._paths[name]
        with self._mode(training, layer):
            output = first_of(layer(*self._tensors_of(inputs), **(options or {})), Tensor)
            if output is None:
                raise PortingError("the layer returns no tensor")
            return to_numpy(output)

    def gradients(self, inputs: Inputs, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""
        own = {name: p for name, p in self._parameters().items() if p.requires_grad}
        weights = _distinct(own.values())
        if not weights:
            return {}

        def scalar(*tensors: Tensor) -> Tensor:
            return (self._output(tensors[:-1]) * tensors[-1]).sum()

        with self._mode(True):
            tensors = (*self._tensors_of(inputs), self._tensor(cotangent))
            found = ms.grad(scalar, None, ms.ParameterTuple(weights))(*tensors)
            by_parameter = {id(p): to_numpy(g) for p, g in zip(weights, found, strict=True)}
        return {name: by_parameter[id(p)] for name, p in own.items()}

    def train(self, batches: Sequence[tuple[Inputs, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (inputs, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others. `nn.SGD` would do the
        same, but compiles a graph of all weights first; `maam parity` compares the optimizers.
        """
        weights = _distinct(p for p in self._parameters().values() if p.requires_grad)
        velocities: list[Any] = [None] * len(weights)

        def loss(*tensors: Tensor) -> Tensor:
            return _loss(self._output(tensors[:-1]), tensors[-1])

        with self._mode(True):
            step = ms.value_and_grad(loss, None, ms.ParameterTuple(weights))
            for inputs, target in batches:
                gradients = step(*self._tensors_of(inputs), self._tensor(target))[1]
                for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                    decayed, before = gradient + weight_decay * weight, velocities[index]
                    velocities[index] = decayed if before is None else momentum * before + decayed
                    weight.copy_(weight - lr * velocities[index])

    def double(self) -> ModelAdapter | None:
        """Return None: MindSpore has no float64 convolution."""
        return None

    def save(self, path: Path, note: Mapping[str, str]) -> str:
        """Write the arrays under MindSpore's names to a .ckpt or .safetensors file; return the code that loads it."""
        arrays = {parameter.name: to_numpy(parameter) for parameter in _distinct(self._parameters().values())}
        name = json.dumps(str(path), ensure_ascii=False)
        if path.suffix == ".safetensors":
            write_safetensors(path, arrays, {"framework": self.framework, **note})
            load = f'mindspore.load_checkpoint({name}, format="safetensors")'
        else:
            write_records(path, arrays, note)
            load = f"mindspore.load_checkpoint({name})"
        return f"mindspore.load_param_into_net(cell, {load})"

    def _cells(self) -> list[tuple[str, nn.Cell]]:
        return [(name, cell) for name, cell in self._paths.items() if not cell._cells or _own(cell)]

    def _parameters(self) -> dict[str, Parameter]:
        return {join_path(name, local): p for name, cell in self._cells() for local, p in _own(cell).items()}

    def _tensor(self, x: Array) -> Tensor:
        if x.dtype.kind != "f":
            return from_numpy(x.astype(np.int32))
        dtype = next((p.dtype for p in self.model.get_parameters() if p.dtype != ms.int32), ms.float32)
        return from_numpy(x.astype(np.float32)).astype(dtype)

    def _tensors_of(self, inputs: Inputs) -> list[Tensor]:
        return [self._tensor(x) for x in inputs]

    def _output(self, inputs: Sequence[Tensor]) -> Tensor:
        output = self.model(*inputs)
        if not isinstance(output, Tensor):
            raise PortingError(f"expected one tensor as output of the cell, got a {type(output).__name__}; wrap it")
        return output

    @contextmanager
    def _mode(self, training: bool, part: nn.Cell | None = None) -> Iterator[None]:
        """Run the model or a part of it in a mode, and restore the modes of all its cells."""
        part = self.model if part is None else part
        before = {cell: cell.training for _, cell in part.cells_and_names()}
        with preserve_mode(ms.PYNATIVE_MODE):
            part.set_train(training)
            for cell in before:
                if is_dropout(type(cell)):
                    cell.set_train(False)
            try:
                yield
            except Exception:
                _settle()
                raise
            finally:
                part.set_train(before[part])
                for cell, was in before.items():  # set_train reaches all cells inside
                    if cell.training != was:
                        cell.set_train(was)


def _cells_by_path(model: nn.Cell) -> dict[str, nn.Cell]:
    """Return all cells by their path in the model, without the wrappers of mixed precision and their names."""
    found: dict[str, nn.Cell] = {}
    inside: list[nn.Cell] = []
    for name, cell in model.cells_and_names():
        path = ".".join(part for part in name.split(".") if part != "_backbone")
        if type(cell).__name__ not in _WRAPPERS and not any(cell is other for other in inside):
            found.setdefault(path, cell)
            inside += [] if _holder(cell) is cell else [_holder(cell)]
    return found


def _holder(cell: nn.Cell) -> nn.Cell:
    """Return the cell that holds the arrays of a layer: `nn.BatchNorm3d` is a layer that holds another batch norm."""
    inner = list(cell._cells.values())
    alone = len(inner) == 1 and not cell._params and _kind(cell) in KINDS.values() and _kind(inner[0]) == _kind(cell)
    return inner[0] if alone else cell


def _kind(cell: nn.Cell) -> str:
    return kind_of(type(cell), "mindspore")


def _settle() -> None:
    """Discard pending errors of a failed model: PyNative is asynchronous and would raise them at a later read."""
    with suppress(Exception):
        to_numpy(from_numpy(np.zeros(1, np.float32)) + 1)


def _own(cell: nn.Cell) -> dict[str, Parameter]:
    holder = _holder(cell)
    start = "" if holder is cell else next(iter(cell._cells))
    own = {join_path(start, name): parameter for name, parameter in holder._params.items()}
    return {n: p for n, p in own.items() if p is not None and p.dtype in DTYPES and p.dtype != ms.int32}


def _slots(name: str, cell: nn.Cell, first: dict[int, str]) -> dict[str, Slot]:
    """Return the slots of a cell; `first` collects the names of parameters to find tied ones."""
    kind, found = _kind(cell), {}
    for local, parameter in _own(cell).items():
        full, torch_name = join_path(name, local), _torch_name(kind, local.rpartition(".")[2])
        before = first.setdefault(id(parameter), full)
        small = torch_name == "bias" or kind.endswith(" norm")
        neutral = small and is_neutral(kind, torch_name, to_numpy(parameter))
        tied = "" if before == full else before
        found[torch_name] = Slot(full, tuple(parameter.shape), parameter.requires_grad, neutral, tied)
    return found


def _layers_of_graph(parameters: Mapping[str, Parameter]) -> list[Layer]:
    """Return the layers of a graph without cells: parameters with equal paths."""
    names = {**_NORM_NAMES, **_OTHER_NAMES["embedding"]}
    found: dict[str, dict[str, Slot]] = {}
    for full, parameter in parameters.items():
        path, _, local = full.rpartition(".")
        name = names.get(local, local)
        trained = parameter.requires_grad and not name.startswith("running_")  # a file does not store requires_grad
        found.setdefault(path, {})[name] = Slot(full, tuple(parameter.shape), trained)
    return [Layer(path, OWN, slots) for path, slots in found.items()]


def _distinct(parameters: Iterable[Parameter]) -> list[Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def _torch_name(kind: str, name: str) -> str:
    names = _NORM_NAMES if kind.endswith(" norm") else _OTHER_NAMES.get(kind, {})
    return names.get(name, name)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if target.dtype == ms.int32:
        return ops.cross_entropy(output, target)
    return (output * target).mean()


@contextmanager
def _hooks(cells: Sequence[tuple[str, nn.Cell]], recorder: Recorder) -> Iterator[None]:
    """Record the calls of cells."""
    handles = [cell.register_forward_hook(_leave(name, recorder), with_kwargs=True) for name, cell in cells]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leave(name: str, recorder: Recorder) -> Callable[[Any, Any, Any, Any], Any]:
    def hook(_cell: Any, inputs: Any, named: Any, output: Any) -> Any:
        new = recorder.add(name, recorder.copy_inputs(inputs, named), named, output)
        if new is None:
            return None
        return with_first(output, Tensor, from_numpy(new).astype(first_of(output, Tensor).dtype))

    return hook
