"""A port from the models to the report."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def load_factory(name: str) -> Any:
    """What `package.module:callable` returns when called without arguments; this runs the user's own code.

    The working folder is searched too, as `python -m` does.

    Raises:
        PortingError: the name has another form, there is no such module or callable, or it fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise PortingError(f"{name!r}: expected package.module:callable, such as my_models:resnet")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
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
    except Exception as error:  # whatever the user's code raises
        raise PortingError(f"{name}() failed: {type(error).__name__}: {error}") from error


Array = np.ndarray[Any, Any]
DIRECTIONS = ("torch-to-mindspore", "mindspore-to-torch")
STAGES: tuple[Callable[[Subject, Report], Iterator[Row]], ...] = (
    compare_weights,
    compare_layers,
    compare_layers_inside,
    compare_outputs,
    compare_gradients,
    compare_steps,
)


@dataclass
class PortReport(Report):
    """A parity report of two models of your own, and how their layers were paired.

    Attributes:
        pairs: the layers with weights, in PyTorch's order.
        how: by what they were paired.
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
    """Move the weights of one of your models into the other, and prove that both compute the same.

    Layers are paired by kind and shapes in their order, and by name where names tell more. Then compared are the
    weights, every layer alone and in the model, the output, running statistics, gradients and a few steps of SGD;
    the report names the first layer that differs. Both models keep their weights and modes besides the transfer.

    Args:
        torch_module: a torch.nn.Module of one input and one output.
        mindspore_cell: a mindspore.nn.Cell; it runs in PyNative mode.
        input_shape: of one sample, (C, H, W) or any other; normal random inputs of it are drawn.
        inputs: instead of a shape: a batch (N, ...), of real numbers or integers.
        names: MindSpore's path for a path in PyTorch, of a layer or of a container; what it leaves out is found.
        skip: paths, of either model, of layers that have no counterpart.
        direction: "torch-to-mindspore" or "mindspore-to-torch": whose weights are copied into the other.
        transfer: False leaves both models as they are, and only compares.
        batch_size: samples in a batch that is drawn.
        steps: training steps to compare.
        seed: of all that is drawn.
        progress: called with the name of each stage before it runs.

    Raises:
        MissingFrameworkError: a framework is not installed.
        PortingError: the layers cannot be matched, a name or option is unknown, or a model is none, or returns no
            tensor.
        ShapeError: PyTorch's model, or both, cannot take the input.
    """
    if direction not in DIRECTIONS:
        raise PortingError(f"direction: expected {' or '.join(DIRECTIONS)}, got {direction!r}")
    torch = load_porting_backend("torch").adapt(torch_module)
    mindspore = load_porting_backend("mindspore").adapt(mindspore_cell)
    x = _inputs(input_shape, inputs, batch_size, seed)
    calls, other_calls, refusal = _trace(torch, mindspore, x)
    layers = torch.layers(), mindspore.layers()
    orders = None if other_calls is None else ([c.name for c in calls], [c.name for c in other_calls])
    pairings = pair_layers(*layers, names=names, skip=skip, orders=orders)
    chosen = _transfer(torch, mindspore, pairings, direction, x) if transfer else pairings[0]
    runs = align(chosen.pairs, layers, calls, other_calls)
    double = _double(torch, x)
    subject = Subject(torch, mindspore, double or torch, chosen.pairs, runs, x, seed, steps, refusal)
    report = PortReport(type(torch_module).__name__, environment=environment(), pairs=chosen.pairs, how=chosen.how)
    for stage in STAGES:
        if progress is not None:
            progress(stage.__name__.removeprefix("compare_").replace("_", " "))
        report.rows.extend(stage(subject, report))
    return report


def _inputs(shape: Sequence[int] | None, inputs: Array | None, batch_size: int, seed: int) -> Array:
    if (shape is None) == (inputs is None):
        raise PortingError("give input_shape, of one sample, or inputs, a batch; one of both")
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
    """What runs in each model; None, and what MindSpore said, where its model alone cannot run."""
    said, found = {}, {}
    for half in (torch, mindspore):
        mode = "eval"
        try:
            calls = half.record(x)[1]
            mode = "train"
            _pass_in_train_mode(half, x)
            found[half.framework] = calls
        except PortingError:
            raise
        except Exception as error:  # whatever a user's model raises
            said[half.framework] = (
                f"{find_entry(half.framework).title}'s model cannot run in {mode} mode: {first_line(error)}"
            )
    if "torch" in said:
        cause = "; ".join(said.values())
        raise ShapeError(f"input {x.shape}: {cause}; give a batch that the models are made for and can be trained on")
    return found["torch"], found.get("mindspore"), said.get("mindspore", "")


def _pass_in_train_mode(half: ModelAdapter, x: Array) -> None:
    """Batch norm refuses a single sample, but only here."""
    before = half.read()
    half.forward(x, training=True)
    half.write(before)


def _transfer(
    torch: ModelAdapter, mindspore: ModelAdapter, pairings: Sequence[Pairing], direction: str, x: Array
) -> Pairing:
    """Copy the weights; of several ways to pair the layers the first that gives the same output, else the first."""
    kept = torch.read(), mindspore.read()
    for pairing in pairings:
        copy_weights(torch, mindspore, pairing.pairs, direction)
        if len(pairings) == 1 or _same_output(torch, mindspore, x):
            return pairing
        torch.write(kept[0])
        mindspore.write(kept[1])
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
    except Exception:  # a MindSpore model that cannot run is reported by its stage
        return False


def _double(torch: ModelAdapter, x: Array) -> ModelAdapter | None:
    double = torch.double()
    try:
        if double is not None:
            double.forward(x)
    except Exception:  # a module that fixes float32 inside; it is held to itself then
        return None
    return double


def save_weights(framework: str, model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's arrays under the framework's own names to a safetensors file, which both frameworks read.

    Raises:
        MissingFrameworkError, PortingError: as `port`.
        WeightsError: `path` has the suffix of another format, or cannot be written; a file that was there stays.
    """
    write_safetensors(path, load_porting_backend(framework).adapt(model).read(), {"framework": framework})
