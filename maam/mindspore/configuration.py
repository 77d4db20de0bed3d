"""MindSpore's settings, which hold for the whole process, in one call."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import amp, nn

from maam.errors import DeploymentError, DeviceError, require
from maam.mindspore.devices import select_device

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
JIT_LEVELS = ("O0", "O1", "O2")
AMP_LEVELS = ("O0", "O1", "O2", "O3", "auto")
SLOW_ONEDNN = (2, 9)
"""From this version on, on CPUs with AVX-512, MindSpore's oneDNN convolves very slowly without a cap."""


@dataclass(frozen=True)
class Configuration:
    """What `configure` has set; `apply` puts its level of mixed precision on a cell."""

    device: str
    mode: str
    jit_level: str
    graph_kernel: bool
    amp_level: str
    parity: bool

    def apply(self, cell: nn.Cell) -> nn.Cell:
        """`cell` in automatic mixed precision of the level chosen (float16); itself at O0."""
        return cell if self.amp_level == "O0" else amp.auto_mixed_precision(cell, self.amp_level)


def configure(
    *,
    device: str | None = None,
    mode: str = "graph",
    jit_level: str | None = None,
    graph_kernel: bool = False,
    amp_level: str | None = None,
    parity: bool = False,
) -> Configuration:
    """Set MindSpore up for this machine; call it before the first operator runs.

    The defaults and their reasons are in docs/deployment.md; on Ascend they are what MindSpore's documentation
    recommends, and nothing was measured.

    Args:
        device: "cpu", "cuda" or "ascend"; None: Ascend where there is one, else the CPU.
        mode: "graph", or "pynative" (operator by operator, slower).
        jit_level: how far graphs are optimized, "O0", "O1" or "O2" (the whole graph on the device, Ascend alone);
            None: O0 on a CPU, O1 elsewhere. Graph mode alone.
        graph_kernel: fusion of elementwise operators into generated kernels. Graph mode alone.
        amp_level: mixed precision, "O0" (none) to "O3" or "auto", for `Configuration.apply`; None: O2 on Ascend without
            `parity`, else O0.
        parity: float32 as float32, for comparisons: no HF32 in convolutions and matrix products on Ascend, where it is
            the default, and operators keep their dtype.

    Raises:
        DeploymentError: a setting is unknown, or two contradict each other.
        DeviceError: the device is not available here, or an operator has run on another one already.
        MissingFrameworkError: graph kernel fusion lacks the package `decorator`.
    """
    _check_names(mode, jit_level, amp_level)
    if mode == "pynative" and (graph_kernel or jit_level is not None):
        given = "graph_kernel" if graph_kernel else f"jit_level {jit_level}"
        raise DeploymentError(f"{given}: for graphs alone, and mode is 'pynative'; use mode='graph'")
    if parity and amp_level not in (None, "O0"):
        raise DeploymentError(f"amp_level {amp_level}: parity compares float32; leave one of the two out")
    if graph_kernel:
        require("decorator", "mindspore")
    chosen = _select(device)
    if jit_level == "O2" and chosen != "ascend":
        raise DeploymentError(
            f"jit_level O2: compiles whole graphs for Ascend, and the device is {chosen!r}; use O0 or O1"
        )
    level = jit_level or ("O0" if chosen == "cpu" else "O1")
    _set(mode, level, graph_kernel)
    if chosen == "ascend":
        _set_ascend(parity)
    precision = amp_level or ("O2" if chosen == "ascend" and not parity else "O0")
    return Configuration(chosen, mode, level, graph_kernel, precision, parity)


def _check_names(mode: str, jit_level: str | None, amp_level: str | None) -> None:
    for name, value, known in (
        ("mode", mode, tuple(MODES)),
        ("jit_level", jit_level, (None, *JIT_LEVELS)),
        ("amp_level", amp_level, (None, *AMP_LEVELS)),
    ):
        if value not in known:
            expected = ", ".join(one for one in known if one is not None)
            raise DeploymentError(f"{name}: expected one of {expected}, got {value!r}")


def _select(device: str | None) -> str:
    try:
        return select_device(device)
    except RuntimeError as error:
        if isinstance(error, DeviceError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(f"device {device!r}: MindSpore refuses it: {reason}; call configure() first") from None


def _set(mode: str, jit_level: str, graph_kernel: bool) -> None:
    settings: dict[str, Any] = {"mode": MODES[mode]}
    if mode == "graph":
        settings |= {"jit_config": {"jit_level": jit_level}, "enable_graph_kernel": graph_kernel}
    ms.set_context(**settings)


def _set_ascend(parity: bool) -> None:
    precision = ms.device_context.ascend.op_precision
    precision.conv_allow_hf32(not parity)
    precision.matmul_allow_hf32(not parity)
    if parity:
        precision.precision_mode("must_keep_origin_dtype")


def cap_instructions() -> None:
    """Cap what oneDNN uses, where it is slow without and the user has not chosen, and say so.

    `maam.mindspore` calls it when it is imported: oneDNN reads the variable when the first operator runs.
    """
    version = tuple(int(part) for part in ms.__version__.split(".")[:2])
    if version >= SLOW_ONEDNN and _has_avx512() and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        warnings.warn(
            f"MindSpore {ms.__version__} convolves very slowly with AVX-512: ONEDNN_MAX_CPU_ISA is set to AVX2; "
            "set it yourself to choose",
            stacklevel=3,
        )


def _has_avx512() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return "avx512f" in file.read()
    except OSError:  # not Linux
        return False
