"""Versions, the machine, the command line, and timing of functions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

PACKAGES = ("maam", "numpy", "torch", "mindspore")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")
SLOW_ONEDNN = (2, 9)
"""The first version of MindSpore whose oneDNN convolves very slowly on CPUs with AVX-512."""
NUMPY_2 = (2, 10)
"""The first version of MindSpore that supports NumPy 2, and can be imported after onnx."""
_PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
Clock = Callable[[], float]


def environment() -> dict[str, str]:
    """Return the names of the machine's processor and the versions of Python, maam, NumPy and the frameworks.

    The keys are always the same; the version of a missing package is "not installed".
    """
    found = {"python": platform.python_version(), "machine": _processor(), "cores": str(os.cpu_count())}
    return found | {package: find_version(package) or "not installed" for package in PACKAGES}


def find_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def release(version: str | None) -> tuple[int, ...]:
    """Return the first two numbers of a version; () for None.

    Example:
        >>> release("2.10.0"), release(None)
        ((2, 10), ())
    """
    parts = (version or "").split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def share_protobuf() -> None:
    """Prepare for an import of onnx in a process that may import MindSpore later.

    MindSpore before version 2.10 works with the Python implementation of protobuf only, if onnx was imported first.
    """
    if "google.protobuf" not in sys.modules and _needs_python_protobuf():
        os.environ.setdefault(_PROTOBUF, "python")


def can_import_mindspore() -> bool:
    """Return whether the installed version of MindSpore can be imported in this process: not always after onnx."""
    if "google.protobuf" not in sys.modules or "mindspore" in sys.modules or not _needs_python_protobuf():
        return True
    return str(import_module("google.protobuf.internal.api_implementation").Type()) == "python"


def _needs_python_protobuf() -> bool:
    version = find_version("mindspore")
    return version is not None and release(version) < NUMPY_2


def cpu_features() -> list[str]:
    """Return the instruction sets of the processor that matter to the frameworks; empty if they are unknown."""
    try:
        words = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:  # not Linux
        return []
    return [name for name in FEATURES if name in words]


def command_line() -> str:
    """Return the command of this process as a user types it, without the folder of the program."""
    path = Path(sys.argv[0])
    program = [path.name]
    if path.name == "__main__.py":
        package = path.absolute().parent.name
        program = [package] if package == "maam" else ["python", "-m", package]
    return shlex.join([*program, *sys.argv[1:]])


def interleave(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    least: float = 0.02,
    clock: Clock = time.perf_counter,
    announce: Callable[[float], None] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Return the seconds of one call of each function, one value for each round.

    The functions run in turns, so that other load on the machine affects all of them.

    Args:
        functions: the functions by name. Each is called once to warm up.
        rounds: the number of rounds.
        least: the seconds to run each function in a round.
        clock: `time.perf_counter`, or `time.process_time` for the CPU time of all threads.
        announce: receives the estimated seconds of all rounds before the first one.
    """
    calls, seconds = {}, 0.0
    for name, function in functions.items():
        function()
        once = _seconds(function, 1, clock)
        calls[name] = max(1, round(least / once))
        seconds += calls[name] * once
    announce(rounds * seconds)
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            found[name].append(_seconds(function, calls[name], clock))
    return found


def ratios(times: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """Return how many times faster than `base` each function is: the median of the ratios within the rounds."""
    return {
        name: statistics.median(b / own for b, own in zip(times[base], values, strict=True))
        for name, values in times.items()
    }


def _seconds(function: Callable[[], object], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        function()
    return max(clock() - start, 1e-9) / calls
