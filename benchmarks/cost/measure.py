"""Measurement of CPU time with interleaved cases, of peak memory, and of the growth of the cost of a MAAM layer."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost.cases import CIFAR, LAYERS, MODELS, check_cases, check_kinds, conv_stage, make_case, starts_with
from maam._messages import check_counts
from maam._system import interleave
from maam.errors import MaamError, SpecError, require
from maam.spec import Node, maam

FRAMEWORKS = ("mindspore", "torch")
"""MindSpore first: it cannot be imported after onnx."""
PRODUCT = "matrix product"
MATRIX_OPERATIONS = 2 * 1024**3
MEMORY_KINDS = ("inference fp32", "training step fp32")
"""The kinds whose peak memory is measured; other kinds compile or quantize, which needs more memory than the model."""
GROWTH: dict[str, tuple[int, ...]] = {
    "branches": (1, 2, 4, 8),
    "channels": (16, 32, 64, 128),
    "size": (8, 16, 32, 64),
    "batch": (1, 4, 16, 64),
}
"""The values of each setting of `measure_growth`; the others stay at 3 branches, 32 channels, 16x16 and batch 8."""
_STANDARD = {"branches": 3, "channels": 32, "size": 16, "batch": 8}
_LONGEST = 200

Functions = dict[tuple[str, str], Callable[[], object]]
Progress = Callable[[str], None]


@dataclass
class Result:
    """The measurements of one group of cases.

    Attributes:
        batch: images in a batch.
        times: seconds of CPU time by (case, framework and kind), one value a round.
        facts: by case: parameters, macs, bytes of the float32 weights, bytes saved for the backward pass per image.
        memory: peak memory in bytes by (case, framework and kind), if it was measured.
        left_out: the reason for each measurement that failed.
    """

    batch: int
    times: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    facts: dict[str, dict[str, int]] = field(default_factory=dict)
    memory: dict[tuple[str, str], int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def seconds(self, case: str, kind: str) -> float:
        """Return the median over the rounds, or NaN if there is no measurement."""
        return float(np.median(self.times.get((case, kind), [np.nan])))

    def to_document(self) -> dict[str, Any]:
        """Return the measurements as JSON data."""
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
    progress: Progress = lambda text: None,
) -> Result:
    """Measure the CPU time of all threads for the cases of a group, interleaved in one process.

    Args:
        group: "layers" (maps of `channels` x `size` x `size`) or "models" (32x32 images).
        cases: names of cases; None means all.
        frameworks: "torch", "mindspore".
        kinds: prefixes of the names of kinds; None means all kinds.
        batch: images in a batch.
        channels: channels of the map, for layers.
        size: height and width of the map, for layers.
        rounds: number of rounds; each round runs all cases and kinds.
        memory: also measure peak memory, each case in its own process (Linux only; takes seconds for each case).
        progress: function that is called with a line of text before each step.

    Raises:
        SpecError: the group, a framework, a case or a kind is unknown, or a count is below 1.
        MissingFrameworkError: a framework is not installed.
    """
    check_counts(batch=batch, channels=channels, size=size, rounds=rounds)
    if group not in ("layers", "models"):
        raise SpecError(f"group: expected layers or models, got {group!r}")
    if not frameworks or not set(frameworks) <= set(FRAMEWORKS):
        raise SpecError(f"frameworks: expected some of {', '.join(FRAMEWORKS)}, got {list(frameworks)}")
    modules = {framework: _load_functions(framework) for framework in FRAMEWORKS if framework in frameworks}
    shared = list(MODELS if group == "models" else LAYERS)
    check_cases(list(cases or []), [*shared, *(name for one in modules.values() for name in one.BASELINES[group])])
    check_kinds(list(kinds or []), list(dict.fromkeys(kind for module in modules.values() for kind in module.KINDS)))
    shape = CIFAR if group == "models" else (channels, size, size)
    x = np.random.default_rng(0).random((batch, *shape)).astype(np.float32)
    result = Result(batch)
    functions: Functions = {}
    done = 0
    chosen = {
        framework: [name for name in (*shared, *module.BASELINES[group]) if cases is None or name in cases]
        for framework, module in modules.items()
    }
    total = sum(map(len, chosen.values()))
    for framework, module in modules.items():
        selected = [k for k in module.KINDS if kinds is None or any(starts_with(k, kind) for kind in kinds)]
        for name in chosen[framework]:
            done += 1
            progress(f"preparing {done} of {total}: {framework}, {name}")
            node = make_case(name, channels)
            functions |= _prepare(framework, name, node, x, selected, result.left_out)
            if framework == "torch" and any(case == name for case, _ in functions):
                result.facts[name] = module.facts(name, node, x)
    if "torch" in modules:
        functions |= {(PRODUCT, precision): run for precision, run in modules["torch"].matrix_products().items()}
    result.times = dict(zip(functions, _interleave(list(functions.values()), rounds, progress), strict=True))
    if memory:
        _measure_memory(result, x.shape, progress)
    return result


def measure_growth(
    framework: str = "torch", *, rounds: int = 5, progress: Progress = lambda text: None
) -> dict[str, tuple[list[float], float]]:
    """Measure the inference time of a MAAM layer for each value in `GROWTH`.

    Args:
        framework: "torch" or "mindspore".
        rounds: number of rounds.
        progress: function that is called with a line of text before the rounds.

    Returns:
        For each setting, the seconds at its values and the slope on logarithmic scales.

    Raises:
        SpecError: `rounds` is below 1.
        MissingFrameworkError: the framework is not installed.
    """
    check_counts(rounds=rounds)
    module = _load_functions(framework)
    functions = []
    for axis, values in GROWTH.items():
        for value in values:
            setting = {**_STANDARD, axis: value}
            node = maam(setting["channels"], num_agents=setting["branches"])
            shape = (setting["batch"], setting["channels"], setting["size"], setting["size"])
            x = np.random.default_rng(0).random(shape).astype(np.float32)
            functions.append(module.make_function("", node, x, "inference fp32"))
    medians = iter([float(np.median(times)) for times in _interleave(functions, rounds, progress)])
    found = {}
    for axis, values in GROWTH.items():
        seconds = [next(medians) for _ in values]
        found[axis] = (seconds, float(np.polyfit(np.log(values), np.log(seconds), 1)[0]))
    return found


def peak_memory(framework: str, name: str, kind: str, shape: tuple[int, ...]) -> int:
    """Return the peak memory of a case in a fresh process, in bytes.

    The process makes a batch, builds the case and runs it twice. The memory of the framework and of other libraries is
    not included: the process runs the kind on a small map first.

    Args:
        framework: "torch" or "mindspore".
        name: name of the case.
        kind: name of the kind.
        shape: of the batch, (N, C, H, W).

    Raises:
        MaamError: the system is not Linux, or the case failed, for example by lack of memory.
    """
    if sys.platform != "linux":
        raise MaamError(f"peak memory is read from /proc, which {sys.platform} does not have")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_in_this_process, framework, name, kind, shape).result()
        except BrokenProcessPool:
            raise MaamError(f"{name}, {framework} {kind}: the process that measures memory died") from None
        except (MemoryError, RuntimeError, OSError) as error:
            raise MaamError(f"{name}, {framework} {kind}: {_one_line(error)}") from None


def _load_functions(framework: str) -> Any:
    """Return `benchmarks.cost.torch_functions` or `benchmarks.cost.mindspore_functions`."""
    require(framework, framework)
    return import_module(f"benchmarks.cost.{framework}_functions")


def _prepare(
    framework: str, name: str, node: Node | None, x: Any, kinds: list[str], left_out: dict[str, str]
) -> Functions:
    """Return the functions of a case to time; write the reason for each that fails to `left_out`."""
    module = _load_functions(framework)
    functions: Functions = {}
    for kind in kinds:
        try:
            functions[name, f"{framework} {kind}"] = module.make_function(name, node, x, kind)
        except (MaamError, RuntimeError, ImportError) as error:
            left_out[f"{name}, {framework} {kind}"] = _one_line(error)
    return functions


def _interleave(functions: Sequence[Callable[[], object]], rounds: int, progress: Progress) -> list[list[float]]:
    """Return the CPU times of each function, one value a round; announce the time that all rounds will take."""
    numbered = {str(index): function for index, function in enumerate(functions)}

    def announce(seconds: float) -> None:
        progress(f"about {timedelta(seconds=round(seconds))} of CPU time for {rounds} rounds")

    return list(interleave(numbered, rounds=rounds, clock=time.process_time, announce=announce).values())


def _measure_memory(result: Result, shape: tuple[int, ...], progress: Progress) -> None:
    for case, kind in result.times:
        framework, _, rest = kind.partition(" ")
        if case == PRODUCT or rest not in MEMORY_KINDS:
            continue
        progress(f"memory: {case}, {kind}")
        try:
            result.memory[case, kind] = peak_memory(framework, case, rest, shape)
        except MaamError as error:
            result.left_out[f"memory of {case}, {kind}"] = str(error)


def _peak_in_this_process(framework: str, name: str, kind: str, shape: tuple[int, ...]) -> int:
    module = _load_functions(framework)
    node, small = make_case(name, shape[1]), np.ones((2, shape[1], 8, 8), np.float32)
    module.make_function("conv stage", conv_stage(shape[1]), small, kind)()
    if node is None:  # a baseline imports its library
        module.make_function(name, None, small, kind)()
    before = _read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    x = np.random.default_rng(0).random(shape, np.float32)
    function = module.make_function(name, node, x, kind)
    function()
    function()
    return 1024 * max(_read_status("VmHWM") - before, 0)


def _read_status(name: str) -> int:
    """Return a field of /proc/self/status in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST]
