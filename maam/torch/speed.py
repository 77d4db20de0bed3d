"""How much faster a model gets here by `optimize`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from maam.errors import MaamError
from maam.timing import interleave, ratios
from maam.torch.optimization import optimize
from maam.torch.weights import load

Speeds = dict[tuple[str, str], float]


def measure(
    path: str | os.PathLike[str], shape: tuple[int, ...], engines: Sequence[str], precisions: Sequence[str]
) -> tuple[Speeds, list[str]]:
    """CPU time of plain eager float32 PyTorch over that of each (engine, precision), and why others were left out.

    All are run in turns on random images of `shape` (N, C, H, W).

    Raises:
        WeightsError: the file is broken.
    """
    model = load(path, torch.float32).eval()
    x = torch.rand(shape)
    functions: dict[str, Any] = {"eager fp32": functools.partial(_run, model, x)}
    reasons = []
    for engine in engines:
        for precision in precisions:
            try:
                fast = optimize(model, x, engine=engine, precision=precision)
            except MaamError as error:
                reasons.append(str(error))
            else:
                functions[f"{engine} {precision if precision != 'auto' else f'auto: {fast.precision}'}"] = (
                    functools.partial(_run, fast, x)
                )
    found = ratios(interleave(functions, clock=time.process_time), "eager fp32")
    return {(name.partition(" ")[0], name.partition(" ")[2]): value for name, value in found.items()}, reasons


def _run(function: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        function(x)
