"""The two models of a port after the transfer of weights, and their recorded forward passes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from maam.backend.adapter import Call, Inputs, Layer, ModelAdapter
from maam.backend.registry import find_entry
from maam.porting.matching import ArrayPair, Pair, convert
from maam.porting.runs import Run
from maam.tolerance import BROKEN, LOGITS, PORT_MARGIN, PORT_MAX_ROUNDING, Bound, Difference, difference

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
RUNNER = "mindspore pynative"
_HALF = {"float16": 100, "bfloat16": 800}
"""How much wider bounds are if values are rounded to half precision."""
NOT_RUN = "MindSpore's model did not run"


class Recording(NamedTuple):
    """A forward pass.

    Attributes:
        output: the output of the model.
        calls: the calls of its layers.
        after: the arrays of the model after the pass.
    """

    output: Array
    calls: list[Call]
    after: dict[str, Array]


@dataclass
class Subject:
    """The two models of a port after the transfer of weights.

    Attributes:
        torch: the PyTorch module.
        mindspore: the MindSpore cell.
        pairs: the layers with weights.
        runs: the corresponding runs of layers.
        layers: all layers of PyTorch and of MindSpore.
        inputs: the inputs of the models.
        seed: the seed of all random numbers.
        steps: the number of training steps.
        refusal: the error message of a MindSpore model that cannot run; empty if it can.
        agrees: whether neither the outputs nor a setting of a layer are known to differ.
        random: why results cannot agree: a model that gives another output at each run; see `find_random_code`.
    """

    torch: ModelAdapter
    mindspore: ModelAdapter
    pairs: Sequence[Pair]
    runs: Sequence[Run]
    layers: tuple[Sequence[Layer], Sequence[Layer]]
    inputs: Inputs
    seed: int
    steps: int
    refusal: str = ""
    agrees: bool = True
    random: str = ""
    _recordings: dict[tuple[str, bool], Recording] = field(default_factory=dict)
    _double: ModelAdapter | None = None

    @property
    def adapters(self) -> dict[str, ModelAdapter]:
        """The adapters of both models by the names of their backends, PyTorch's first."""
        return {adapter.framework: adapter for adapter in (self.torch, self.mindspore)}

    def layers_of(self, side: str) -> Sequence[Layer]:
        """Return all layers of the model of a backend."""
        return self.layers[list(self.adapters).index(side)]

    @property
    def double(self) -> ModelAdapter:
        """The PyTorch module in float64, the reference; the float32 module if it cannot run in float64."""
        if self._double is None:
            self._double = self._make_double()
        return self._double

    def _make_double(self) -> ModelAdapter:
        double = self.torch.double()
        if double is None:
            return self.torch
        try:
            before = double.read()
            self._recordings["double", False] = Recording(double.forward(self.inputs), [], before)
        except Exception:  # a module that creates float32 tensors; it is then its own reference
            return self.torch
        return double

    @functools.cached_property
    def code_bound(self) -> Bound:
        """The bound for code between layers; in mixed precision, each cast between layers rounds to half precision."""
        sides = zip(self.adapters.values(), self.layers, strict=True)
        settings = [adapter.settings(layer.name, ()) for adapter, layers in sides for layer in layers]
        found = {own["precision"].value for own in settings if "precision" in own}
        if not found & set(_HALF) and not self.mindspore.mixed:
            return LOGITS
        return LOGITS.times(max([_HALF[name] for name in found if name in _HALF], default=_HALF["float16"]))

    @functools.cached_property
    def arrays(self) -> list[ArrayPair]:
        """The corresponding arrays of both models; tied ones once."""
        found: dict[tuple[str, ...], ArrayPair] = {}
        for pair in self.pairs:
            for item in pair.arrays:
                key = tuple(slot.tied or slot.name for slot in (*item.torch, *item.mindspore))
                found.setdefault(key, item)
        return list(found.values())

    @functools.cached_property
    def shared(self) -> list[ArrayPair]:
        """The corresponding arrays that both models have."""
        return [item for item in self.arrays if item.torch and item.mindspore]

    def recording(self, side: str, training: bool = False) -> Recording:
        """Return the recorded forward pass of the model of a backend, and restore the model's arrays."""
        if (side, training) not in self._recordings:
            self._recordings[side, training] = record(self.adapters[side], self.inputs, training)
        return self._recordings[side, training]

    def recordings(self, training: bool = False) -> tuple[Recording, Recording]:
        """Return the recorded forward passes of PyTorch and of MindSpore."""
        return self.recording("torch", training), self.recording("mindspore", training)

    def expected_output(self, training: bool = False) -> Recording:
        """Return the forward pass of the reference, without calls."""
        double = self.double
        if ("double", training) not in self._recordings:
            before = double.read()
            output = double.forward(self.inputs, training)
            self._recordings["double", training] = Recording(output, [], double.read())
            double.write(before)
        return self._recordings["double", training]

    def find_random_code(self, training: bool) -> str:
        """Run each model again; return and keep the reason if one gives another output than before."""
        found = []
        for side, adapter in self.adapters.items():
            first = self.recording(side, training).output
            again = record(adapter, self.inputs, training).output
            if compare_arrays(again, first, first, LOGITS).used > 1:
                found.append(find_entry(side).title)
        if found:
            what = "random code, such as dropout that is called as a function"
            mode = "train" if training else "eval"
            self.random = f"{what}: the output of {' and '.join(found)} changes from run to run in {mode} mode"
        return self.random

    def torch_names(self, arrays: Arrays) -> dict[str, Array]:
        """Return MindSpore's arrays under PyTorch's names and in PyTorch's shapes."""
        found: dict[str, Array] = {}
        for item in self.shared:
            if all(slot.name in arrays for slot in item.mindspore):
                parts = convert([arrays[slot.name] for slot in item.mindspore], item.torch)
                found |= {slot.name: part for slot, part in zip(item.torch, parts, strict=True)}
        return found

    def display_name(self, name: str) -> str:
        """Return a PyTorch array's name for a report, with MindSpore's if it differs."""
        other = self._other_names.get(name, name)
        return name if other == name else f"{name} (MindSpore: {other})"

    @functools.cached_property
    def _other_names(self) -> dict[str, str]:
        """MindSpore's name, or its comma-separated names, for each of PyTorch's arrays."""
        names = [(item.torch, ", ".join(slot.name for slot in item.mindspore)) for item in self.shared]
        return {slot.name: other for own, other in names for slot in own}


def record(adapter: ModelAdapter, inputs: Inputs, training: bool) -> Recording:
    """Return the recorded forward pass of a model, and restore its arrays."""
    before = adapter.read() if training else None
    output, calls = adapter.record(inputs, training)
    if before is None:
        return Recording(output, calls, {})
    after = adapter.read()
    adapter.write(before)
    return Recording(output, calls, after)


def judge(actual: Array, single: Array, expected: Callable[[], Array], bound: Bound) -> Difference:
    """Compare MindSpore's array with the reference, which is computed only if float32 PyTorch does not suffice.

    If both float32 results agree within half the bound, the comparison with the reference would pass, too.
    """
    found = near(actual, single, bound)
    if found is None:
        found = difference(actual, single.astype(np.float64), bound)
    return found if found.used <= 0.5 else compare_arrays(actual, expected(), single, bound)


def near(actual: Array, single: Array, bound: Bound) -> Difference | None:
    """Compare two float32 arrays without converting them; None unless they agree within half the absolute bound."""
    if actual.shape != single.shape or actual.dtype != single.dtype or single.size == 0 or bound.scaled:
        return None
    gap, largest = float(np.abs(actual - single).max()), float(max(single.max(), -single.min()))
    used = gap / (bound.absolute * max(largest, 1.0)) if bound.absolute else np.inf
    return Difference(gap, gap / largest if largest else gap, used) if used <= 0.5 else None


def compare_arrays(actual: Array, expected: Array, single: Array, bound: Bound) -> Difference:
    """Compare an array with the expected one; rounding in float32 PyTorch widens the bound.

    Args:
        actual: MindSpore's result.
        expected: the float64 result.
        single: the result of PyTorch in float32.
        bound: the tolerance without rounding.
    """
    if actual.shape != expected.shape:
        return BROKEN
    expected = expected.astype(np.float64)
    rounding = PORT_MARGIN * float(np.abs(single - expected).max(initial=0))
    slack = min(rounding, PORT_MAX_ROUNDING * max(1.0, float(np.abs(expected).max(initial=0))))
    return difference(actual, expected, bound, slack=slack)


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
