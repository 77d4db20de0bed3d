"""MindSpore's settings for the whole process in one call."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import amp, nn

from maam._messages import one_line
from maam._system import SLOW_ONEDNN, cpu_features, release
from maam.errors import DeploymentError, DeviceError, require
from maam.mindspore.devices import select_device

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
JIT_LEVELS = ("O0", "O1", "O2")
_AVX2 = 0x7  # dnnl_cpu_isa_avx2
AMP_LEVELS = ("O0", "O1", "O2", "O3", "auto")


@dataclass(frozen=True)
class Configuration:
    """The settings that `configure` has made; `apply` applies the level of mixed precision to a cell.

    Attributes:
        device: "cpu" or "ascend".
        mode: "graph" or "pynative".
        jit_level: the optimization level of graphs.
        graph_kernel: whether elementwise operators are fused.
        amp_level: the level of mixed precision.
        parity: whether float32 is computed in full precision.

    Example:
        >>> import maam
        >>> settings = maam.mindspore.configure()
        >>> isinstance(settings, maam.mindspore.Configuration), settings.mode
        (True, 'graph')
    """

    device: str
    mode: str
    jit_level: str
    graph_kernel: bool
    amp_level: str
    parity: bool

    def apply(self, cell: nn.Cell) -> nn.Cell:
        """Return the cell in mixed precision (float16) of the chosen level; at O0 the cell itself."""
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
    """Set up MindSpore for this machine; call it before the first operator runs.

    docs/deployment.md explains the defaults. The defaults for Ascend follow MindSpore's documentation and are not
    tested on hardware.

    Args:
        device: "cpu" or "ascend"; None chooses Ascend if available, otherwise the CPU.
        mode: "graph", or "pynative" (operator by operator, slower).
        jit_level: the optimization level of graphs: "O0", "O1" or, on Ascend only, "O2" for whole graphs. None chooses
            O0 on a CPU and O1 elsewhere. Graph mode only.
        graph_kernel: whether to fuse elementwise operators into generated kernels. Graph mode only.
        amp_level: the level of mixed precision for `Configuration.apply`: "O0" (none), "O1", "O2", "O3" or "auto". None
            chooses O2 on Ascend without `parity`, and O0 elsewhere.
        parity: whether to compute float32 in full precision, for comparisons. On Ascend, convolutions and matrix
            products then do not use HF32, and operators keep their dtype.

    Returns:
        The settings.

    Raises:
        DeploymentError: a setting is unknown, or two settings contradict each other.
        DeviceError: the device is not available, or an operator has already run on another one.
        MissingFrameworkError: graph kernel fusion needs the package `decorator`.

    Example:
        >>> import maam
        >>> settings = maam.mindspore.configure(device="cpu", jit_level="O0")
        >>> settings.device, settings.jit_level, settings.amp_level
        ('cpu', 'O0', 'O0')
        >>> model = settings.apply(maam.mindspore.build("maam_digits"))
    """
    _check_names(mode, jit_level, amp_level)
    if mode == "pynative" and (graph_kernel or jit_level is not None):
        given = "graph_kernel" if graph_kernel else f"jit_level {jit_level}"
        raise DeploymentError(f"{given}: needs graph mode, and mode is 'pynative'; use mode='graph'")
    if parity and amp_level not in (None, "O0"):
        raise DeploymentError(f"amp_level {amp_level}: parity needs float32; omit amp_level or parity")
    if graph_kernel:
        require("decorator", "mindspore")
    chosen = _select(device)
    if jit_level == "O2" and chosen != "ascend":
        raise DeploymentError(f"jit_level O2: needs Ascend, and the device is {chosen!r}; use O0 or O1")
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
        reason = one_line(error, 200)
        raise DeviceError(
            f"device {device!r}: MindSpore cannot select it ({reason}); call configure() before the first operator runs"
        ) from None


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


@contextlib.contextmanager
def preserve_mode(mode: int | None = None) -> Iterator[None]:
    """Run in a mode of MindSpore, graph or PyNative, and restore the mode on leaving the context; None sets no mode.

    The mode applies to all models of the process, and some functions of MindSpore leave another one behind.
    """
    before = ms.get_context("mode")
    if mode is not None:
        ms.set_context(mode=mode)
    try:
        yield
    finally:
        ms.set_context(mode=before)


def cap_instructions() -> None:
    """Limit MindSpore's oneDNN to AVX2 if it is slow with AVX-512 and the user has not set ONEDNN_MAX_CPU_ISA.

    Importing `maam.mindspore` calls this function. It calls MindSpore's own copy of oneDNN, because the environment
    variable would also slow down PyTorch in the same process. oneDNN accepts a limit until the first operator runs.
    """
    if release(ms.__version__) < SLOW_ONEDNN or "avx512f" not in cpu_features() or "ONEDNN_MAX_CPU_ISA" in os.environ:
        return
    if not _limit_onednn():
        warnings.warn(
            f"MindSpore {ms.__version__} convolves very slowly with AVX-512; import maam.mindspore before the first "
            "operator runs, or set ONEDNN_MAX_CPU_ISA=AVX2",
            stacklevel=3,
        )


def _limit_onednn() -> bool:
    """Return whether MindSpore's oneDNN now uses AVX2 at most."""
    for path in (Path(ms.__file__).parent / "lib").glob("libdnnl.so*"):
        library = ctypes.CDLL(str(path))
        library.dnnl_set_max_cpu_isa(_AVX2)
        return bool(library.dnnl_get_effective_cpu_isa() == _AVX2)
    return False


def ask_for_numpy() -> None:
    """Let MindSpore ask for the C interface of NumPy 1, for which it is compiled, before it runs an operator.

    It asks once per process, in PyNative mode. With NumPy 2 it works without the interface. But the first call of
    `x.reshape(-1)` or `x.transpose(0, 1)` fails with SystemError or ImportError, and every first call prints 50 lines
    on standard error. An invalid call asks without starting the device. Importing `maam.mindspore` calls this function.
    """
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(TypeError, ImportError, SystemError):
            ms.Tensor(np.zeros(1, np.float32)).reshape("")
