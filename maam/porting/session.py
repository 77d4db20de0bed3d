"""Ports of a user's own model: transfer of weights, comparison, and the report."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maam._system import environment
from maam.backend.adapter import Call, ModelAdapter
from maam.backend.registry import find_entry, load_porting_backend
from maam.errors import PortingError, ShapeError
from maam.parity.report import Report, Row
from maam.porting.compare import (
    Subject,
    compare_gradients,
    compare_layers,
    compare_layers_inside,
    compare_outputs,
    compare_steps,
    compare_weights,
    first_line,
)
from maam.porting.pairing import Pair, Pairing, align, pair_layers
from maam.tolerance import LOGITS, difference
from maam.weights.file import write_safetensors

Array = np.ndarray[Any, Any]
DIRECTIONS = ("torch-to-mindspore", "mindspore-to-torch")
STAGES: dict[str, Callable[[Subject, str], list[Row]]] = {
    "weights": compare_weights,
    "layers": compare_layers,
    "layers inside": compare_layers_inside,
    "outputs": compare_outputs,
    "gradients": compare_gradients,
    "steps": compare_steps,
}
"""The stages by name, those that locate a fault most exactly first."""


@dataclass
class PortReport(Report):
    """The report of a port: rows as in a parity report, and the pairs of layers.

    Attributes:
        pairs: the layers with weights, in PyTorch's order.
        how: how they were paired, such as "by name".

    Example:
        >>> from maam.porting import PortReport
        >>> report = PortReport("net", how="by name")
        >>> len(report.pairs), report.passed
        (0, False)
    """

    pairs: Sequence[Pair] = field(default_factory=tuple)
    how: str = ""


def port(
    torch_module: Any,
    mindspore_cell: Any,
    *,
    input_shape: Sequence[int] | None = None,
    inputs: Array | None = None,
    names: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    direction: str = "torch-to-mindspore",
    transfer: bool = True,
    batch_size: int = 4,
    steps: int = 3,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> PortReport:
    """Copy the weights of one of your models into the other, and compare both models.

    Layers are paired in order, by kind and shapes, or by name if that pairs more equal names. The comparison covers
    weights, each layer alone and in the model, outputs, running statistics, gradients and a few steps of SGD. The
    report names the first layer that differs. Apart from the copy, both models keep their weights and modes.

    Args:
        torch_module: a torch.nn.Module with one input and one output.
        mindspore_cell: the corresponding mindspore.nn.Cell; it runs in PyNative mode.
        input_shape: the shape of one sample, such as (C, H, W); normal random inputs are drawn. Pass exactly one of
            `input_shape` and `inputs`.
        inputs: a batch (N, ...) of real numbers or integers.
        names: MindSpore's path for a path in PyTorch, of a layer or a container; other layers are paired as usual.
        skip: paths of layers, in either model, that have no counterpart.
        direction: "torch-to-mindspore" or "mindspore-to-torch": the direction of the copy.
        transfer: whether to copy the weights; otherwise the models are only compared.
        batch_size: the number of random samples.
        steps: the number of training steps.
        seed: the seed of all random numbers.
        progress: called with the name of each stage before it runs.

    Returns:
        The report; it is true if nothing differs.

    Raises:
        MissingFrameworkError: a framework is not installed.
        PortingError: the layers cannot be paired, a name or option is unknown, or an object is not a model or does not
            return a tensor.
        ShapeError: the PyTorch model cannot take the input.

    Example:
        >>> import mindspore, torch
        >>> from maam.porting import port
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
        >>> cell = mindspore.nn.SequentialCell(mindspore.nn.Dense(4, 3), mindspore.nn.ReLU())
        >>> report = port(module, cell, input_shape=(4,), steps=1)
        >>> report.passed, [pair.name for pair in report.pairs]
        (True, ['0'])
    """
    if direction not in DIRECTIONS:
        raise PortingError(f"direction: expected {' or '.join(DIRECTIONS)}, got {direction!r}")
    torch = load_porting_backend("torch").adapt(torch_module)
    mindspore = load_porting_backend("mindspore").adapt(mindspore_cell)
    x = _make_inputs(input_shape, inputs, batch_size, seed)
    calls, other_calls, refusal = _trace(torch, mindspore, x)
    layers = torch.layers(), mindspore.layers()
    orders = None if other_calls is None else ([c.name for c in calls], [c.name for c in other_calls])
    pairings = pair_layers(*layers, names=names, skip=skip, orders=orders)
    chosen = _transfer(torch, mindspore, pairings, direction, x) if transfer else pairings[0]
    runs = align(chosen.pairs, layers, calls, other_calls)
    double = _double(torch, x)
    subject = Subject(torch, mindspore, double or torch, chosen.pairs, runs, x, seed, steps, refusal)
    report = PortReport(type(torch_module).__name__, environment=environment(), pairs=chosen.pairs, how=chosen.how)
    for name, stage in STAGES.items():
        if progress is not None:
            progress(name)
        report.rows.extend(stage(subject, report.first_difference))
    return report


def _make_inputs(shape: Sequence[int] | None, inputs: Array | None, batch_size: int, seed: int) -> Array:
    if (shape is None) == (inputs is None):
        raise PortingError("pass exactly one of input_shape (the shape of one sample) and inputs (a batch)")
    if inputs is not None:
        array = np.asarray(inputs)
        if array.ndim < 1 or array.size == 0 or array.dtype.kind not in "fiu":
            raise PortingError(f"inputs: expected a batch of numbers, got {array.dtype} of shape {array.shape}")
        return array.astype(np.float32) if array.dtype.kind == "f" else array
    if not all(isinstance(size, (int, np.integer)) and size > 0 for size in shape or ()):
        raise PortingError(f"input_shape: expected positive integers such as (3, 224, 224), got {shape!r}")
    generator = np.random.default_rng([seed, 3])
    return generator.standard_normal((batch_size, *(shape or ()))).astype(np.float32)


def _trace(torch: ModelAdapter, mindspore: ModelAdapter, x: Array) -> tuple[list[Call], list[Call] | None, str]:
    """Run both models and return their calls of layers.

    Returns:
        PyTorch's calls, MindSpore's calls, and an empty text. If only MindSpore's model fails, its calls are None and
        the text is its error message.
    """
    messages, found = {}, {}
    for adapter in (torch, mindspore):
        mode = "eval"
        try:
            calls = adapter.record(x)[1]
            mode = "train"
            before = adapter.read()
            adapter.forward(x, training=True)  # batch norm rejects a single sample only in train mode
            adapter.write(before)
            found[adapter.framework] = calls
        except PortingError:
            raise
        except Exception as error:  # a user's model may raise anything
            title = find_entry(adapter.framework).title
            messages[adapter.framework] = f"{title}'s model cannot run in {mode} mode: {first_line(error)}"
    if torch.framework in messages:
        cause = "; ".join(messages.values())
        raise ShapeError(f"input {x.shape}: {cause}; pass a batch that the models accept in eval and train mode")
    return found[torch.framework], found.get(mindspore.framework), messages.get(mindspore.framework, "")


def _transfer(
    torch: ModelAdapter, mindspore: ModelAdapter, pairings: Sequence[Pairing], direction: str, x: Array
) -> Pairing:
    """Copy the weights by the first pairing that gives equal outputs, or by the first of all if none does."""
    before = torch.read(), mindspore.read()
    for pairing in pairings:
        copy_weights(torch, mindspore, pairing.pairs, direction)
        if len(pairings) == 1 or _same_output(torch, mindspore, x):
            return pairing
        torch.write(before[0])
        mindspore.write(before[1])
    copy_weights(torch, mindspore, pairings[0].pairs, direction)
    return pairings[0]


def copy_weights(torch: ModelAdapter, mindspore: ModelAdapter, pairs: Sequence[Pair], direction: str) -> None:
    """Copy all arrays of the pairs from one model into the other."""
    slots = [slot for pair in pairs for slot in pair.slots]
    if direction == DIRECTIONS[0]:
        arrays = torch.read()
        mindspore.write({b.name: arrays[a.name].reshape(b.shape) for a, b in slots})
    else:
        arrays = mindspore.read()
        torch.write({a.name: arrays[b.name].reshape(a.shape) for a, b in slots})


def _same_output(torch: ModelAdapter, mindspore: ModelAdapter, x: Array) -> bool:
    try:
        return difference(mindspore.forward(x), torch.forward(x).astype(np.float64), LOGITS).used <= 1
    except Exception:  # a stage reports a MindSpore model that cannot run
        return False


def _double(torch: ModelAdapter, x: Array) -> ModelAdapter | None:
    """Return the model in float64; None if it cannot run in float64."""
    double = torch.double()
    try:
        if double is not None:
            double.forward(x)
    except Exception:  # a module that creates float32 tensors; it is then its own reference
        return None
    return double


def load_factory(name: str) -> Any:
    """Import a function or class, call it without arguments, and return the result; this runs your own code.

    The working folder is searched too, as with `python -m`.

    Args:
        name: "package.module:callable".

    Raises:
        PortingError: the name has another form, the module or the callable does not exist, or it fails.

    Example:
        >>> from maam.porting import load_factory
        >>> load_factory("collections:OrderedDict")
        OrderedDict()
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise PortingError(f"{name!r}: expected package.module:callable, such as my_models:resnet")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise PortingError(f"{name}: {module_name} cannot be imported: {reason}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise PortingError(f"{name}: {module_name} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise PortingError(f"{name}: expected a function or class, got an object of type {type(found).__name__}")
    try:
        return found()
    except Exception as error:  # the user's function may raise anything
        raise PortingError(f"{name}() failed: {type(error).__name__}: {error}") from error


def save_weights(framework: str, model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's arrays to a safetensors file under the framework's own names; both frameworks can read it.

    Args:
        framework: "torch" or "mindspore".
        model: your own torch.nn.Module or mindspore.nn.Cell.
        path: the file to write; an existing file is replaced only after the new one is complete.

    Raises:
        MissingFrameworkError: the framework is not installed.
        PortingError: `model` is not a model of the framework.
        WeightsError: `path` has the suffix of another format, or cannot be written.

    Example:
        >>> import os, tempfile, torch
        >>> from safetensors.numpy import load_file
        >>> from maam.porting import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "linear.safetensors")
        ...     save_weights("torch", torch.nn.Linear(2, 3), path)
        ...     {name: array.shape for name, array in load_file(path).items()}
        {'bias': (3,), 'weight': (3, 2)}
    """
    write_safetensors(path, load_porting_backend(framework).adapt(model).read(), {"framework": framework})
