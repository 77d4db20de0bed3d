"""The peak memory of a case: what a process of its own takes beyond its framework."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path

import numpy as np

from maam.bench.cases import conv_stage, make_case
from maam.errors import MaamError

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
