"""Measuring cases in turns, and how cost grows with the settings of a layer."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost.cases import CIFAR, LAYERS, MODELS, check_cases, check_kinds, conv_stage, make_case, starts_with
from maam._system import interleave
from maam.errors import MaamError, SpecError, check_counts, require
from maam.spec import Node, maam

KINDS = ("inference fp32", "training step fp32")
"""What is measured; compiling and quantizing take more than what they make."""


def peak_memory(framework: str, name: str, kind: str, shape: tuple[int, int, int, int]) -> int:
    """Bytes at the peak of making a batch (N, C, H, W) and a case, and running it twice, in a fresh process.

    The framework and other libraries, once they have run the kind on a small map, do not count.

    Raises:
        MaamError: the system is not Linux, whose /proc tells the peak; there is too little memory, of which the
            process mostly dies.
    """
    if sys.platform != "linux":
        raise MaamError(f"peak memory is read from /proc, which {sys.platform} does not have")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, framework, name, kind, shape).result()
        except BrokenProcessPool:
            raise MaamError(f"{name}, {framework} {kind}: the process that measures memory died") from None
        except (MemoryError, RuntimeError, OSError) as error:
            raise MaamError(f"{name}, {framework} {kind}: {' '.join(str(error).split())[:200]}") from None


def _measure(framework: str, name: str, kind: str, shape: tuple[int, int, int, int]) -> int:
    room = import_module(f"maam.{framework}.benchmarks")
    node, small = make_case(name, shape[1]), np.ones((2, shape[1], 8, 8), np.float32)
    room.make_functions("conv stage", conv_stage(shape[1]), small, [kind])[kind]()
    if node is None:  # what comes from another library imports it
        room.make_functions(name, None, small, [kind])[kind]()
    before = _kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    x = np.random.default_rng(0).random(shape, np.float32)
    function = room.make_functions(name, node, x, [kind])[kind]
    function()
    function()
    return 1024 * max(_kibibytes("VmHWM") - before, 0)


def _kibibytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


FRAMEWORKS = ("mindspore", "torch")
"""MindSpore first: it cannot be imported after onnx."""
PRODUCT = "matrix product"
MATRIX_OPERATIONS = 2 * 1024**3


@dataclass
class Result:
    """What was measured.

    Attributes:
        batch: images in a batch.
        times: seconds of CPU time by (case, framework and kind), one value a round.
        facts: by case: parameters, macs, bytes on disk, bytes that a training step saves an image.
        memory: bytes at the peak by (case, framework and kind), where it was measured.
        left_out: what could not be measured, and why.
    """

    batch: int
    times: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    facts: dict[str, dict[str, int]] = field(default_factory=dict)
    memory: dict[tuple[str, str], int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def seconds(self, case: str, kind: str) -> float:
        """The median over the rounds; NaN where it was not measured."""
        return float(np.median(self.times.get((case, kind), [np.nan])))

    def to_document(self) -> dict[str, Any]:
        """As JSON data."""
        times = [{"case": case, "kind": kind, "seconds": values} for (case, kind), values in self.times.items()]
        memory = [{"case": case, "kind": kind, "bytes": value} for (case, kind), value in self.memory.items()]
        return {**asdict(self), "times": times, "memory": memory}


def measure(
    group: str,
    *,
    cases: Sequence[str] | None = None,
    frameworks: Sequence[str] = FRAMEWORKS,
    kinds: Sequence[str] | None = None,
    batch: int = 8,
    channels: int = 64,
    size: int = 32,
    rounds: int = 5,
    memory: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure all cases of a group, "layers" or "models", in turns within one run, by CPU time of all threads.

    Args:
        group: layers for maps of `channels` x `size` x `size`, or models of 32x32 images.
        cases: some of them; all where None.
        frameworks: "torch", "mindspore".
        kinds: some of the kinds that the frameworks know, by the start of their name; all where None.
        batch: images in a batch.
        channels: of the map, for layers.
        size: height and width of the map, for layers.
        rounds: how often all are run in turns.
        memory: whether the peak memory is measured too, each case in a process of its own (seconds each; Linux).
        progress: called with what is made ready.

    Raises:
        SpecError: an unknown group, framework, case or kind, or a count under 1.
        MissingFrameworkError: a framework is not installed.
    """
    check_counts(batch=batch, channels=channels, size=size, rounds=rounds)
    if group not in ("layers", "models"):
        raise SpecError(f"group: expected layers or models, got {group!r}")
    if not frameworks or not set(frameworks) <= set(FRAMEWORKS):
        raise SpecError(f"frameworks: expected some of {', '.join(FRAMEWORKS)}, got {list(frameworks)}")
    shape = CIFAR if group == "models" else (channels, size, size)
    x = np.random.default_rng(0).random((batch, *shape)).astype(np.float32)
    result = Result(batch)
    functions: dict[tuple[str, str], Callable[[], object]] = {}
    ordered = [framework for framework in FRAMEWORKS if framework in frameworks]
    check_kinds(list(kinds or []), list(dict.fromkeys(kind for name in ordered for kind in _room(name).KINDS)))
    for framework in ordered:
        room = _room(framework)
        known = [*(MODELS if group == "models" else LAYERS), *room.RIVALS[group]]
        check_cases(list(cases or []), [*known, *_all_rivals(group, ordered)])
        for name in (name for name in known if cases is None or name in cases):
            progress(f"{framework}: {name}")
            chosen = [k for k in room.KINDS if kinds is None or any(starts_with(k, kind) for kind in kinds)]
            _add(room, framework, name, make_case(name, channels), x, chosen, functions, result)
    if "torch" in ordered:
        products = _room("torch").matrix_products()
        functions |= {(PRODUCT, precision): function for precision, function in products.items()}
    named = {f"{case}\n{kind}": function for (case, kind), function in functions.items()}
    times = interleave(named, rounds=rounds, clock=time.process_time)
    result.times = {tuple(name.split("\n")): values for name, values in times.items()}  # type: ignore[misc]
    if memory:
        _add_memory(result, [*result.times], x.shape, progress)
    return result


GROWTH: dict[str, tuple[int, ...]] = {
    "branches": (1, 2, 4, 8),
    "channels": (16, 32, 64, 128),
    "size": (8, 16, 32, 64),
    "batch": (1, 4, 16, 64),
}
"""What grows, and its values; the others stay at 3 branches, 32 channels, 16x16, batch 8."""
_STANDARD = {"branches": 3, "channels": 32, "size": 16, "batch": 8}


def measure_growth(framework: str = "torch", *, rounds: int = 5) -> dict[str, tuple[list[float], float]]:
    """For each of `GROWTH`: seconds of inference at its values, and the slope on logarithmic scales.

    Raises:
        SpecError: rounds is under 1.
        MissingFrameworkError: the framework is not installed.
    """
    check_counts(rounds=rounds)
    room = _room(framework)
    functions = {}
    for axis, values in GROWTH.items():
        for value in values:
            setting = {**_STANDARD, axis: value}
            node = maam(setting["channels"], num_agents=setting["branches"])
            shape = (setting["batch"], setting["channels"], setting["size"], setting["size"])
            x = np.random.default_rng(0).random(shape).astype(np.float32)
            functions[f"{axis} {value}"] = room.make_functions("", node, x, ["inference fp32"])["inference fp32"]
    times = interleave(functions, rounds=rounds, clock=time.process_time)
    found = {}
    for axis, values in GROWTH.items():
        seconds = [float(np.median(times[f"{axis} {value}"])) for value in values]
        found[axis] = (seconds, float(np.polyfit(np.log(values), np.log(seconds), 1)[0]))
    return found


def _room(framework: str) -> Any:
    require(framework, framework)
    return import_module(f"maam.{framework}.benchmarks")


def _all_rivals(group: str, frameworks: Sequence[str]) -> list[str]:
    return [name for framework in frameworks for name in _room(framework).RIVALS[group]]


def _add(
    room: Any, framework: str, name: str, node: Node | None, x: Any, kinds: list[str], functions: Any, result: Result
) -> None:
    """One kind at a time, so that what cannot be made here leaves the others."""
    for kind in kinds:
        try:
            made = room.make_functions(name, node, x, [kind])
        except (MaamError, RuntimeError, ImportError) as error:
            result.left_out[f"{name}, {framework} {kind}"] = " ".join(str(error).split())[:200]
        else:
            functions |= {(name, f"{framework} {k}"): function for k, function in made.items()}
    if framework == "torch" and any(case == name for case, _ in functions):
        result.facts[name] = room.facts(name, node, x)


def _add_memory(
    result: Result, measured: Sequence[tuple[str, str]], shape: Any, progress: Callable[[str], None]
) -> None:
    for case, kind in measured:
        framework, _, rest = kind.partition(" ")
        if case == PRODUCT or rest not in KINDS:
            continue
        progress(f"memory: {case}, {kind}")
        try:
            result.memory[case, kind] = peak_memory(framework, case, rest, shape)
        except MaamError as error:
            result.left_out[f"memory of {case}, {kind}"] = str(error)
