"""Devices and precisions of PyTorch, and the choice of the fastest."""

from __future__ import annotations

import functools
import time

import torch
from torch.nn import functional

from maam._system import interleave, ratios
from maam.backend.devices import choose_device, choose_precision
from maam.spec import Node
from maam.torch.runner import Runner
from maam.torch.weights import build


def list_devices() -> dict[str, str]:
    """Return the available devices, the best one first, each with its description."""
    found = {}
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["cuda"] = f"cuda ({', '.join(names)})"
    return {**found, "cpu": "cpu"}


def select_device(name: str | None = None) -> str:
    """Return the device of that name; None chooses a GPU if available, otherwise the CPU.

    Raises:
        DeviceError: the device is not available.
    """
    return choose_device("PyTorch", name, tuple(list_devices()))


def select_precision(device: str, name: str = "auto") -> str:
    """Return the precision of that name; "auto" chooses bf16 if it is faster than fp32 on the device.

    Raises:
        DeviceError: the device does not support it.
    """
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else has_fast_bf16()
    precisions = ("bf16", "fp32", "fp16") if native else ("fp32", "bf16", "fp16")
    return choose_precision("PyTorch", device, name, precisions)


def has_native_bf16() -> bool:
    """Return whether the CPU has instructions that multiply bfloat16 (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))


@functools.cache
def has_fast_bf16() -> bool:
    """Return whether bfloat16 convolutions are clearly faster than float32 ones; measured once per process.

    The instruction set does not predict it: with AVX-512 BF16 but without AMX, bfloat16 is faster than float32 on some
    processors and half as fast on others (docs/results/speed.md).
    """
    return has_native_bf16() and _gain(torch.bfloat16) > 1.2


def _gain(dtype: torch.dtype) -> float:
    """Return how many times faster a 3x3 convolution is in `dtype` than in float32, by CPU time."""
    functions = {str(each): functools.partial(_convolve, each) for each in (torch.float32, dtype)}
    return ratios(interleave(functions, rounds=3, least=0.005, clock=time.process_time), str(torch.float32))[str(dtype)]


def _convolve(dtype: torch.dtype) -> None:
    x, weight = _operands(dtype)
    with torch.no_grad():
        functional.conv2d(x, weight, padding=1)


@functools.cache
def _operands(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return small random maps (8, 64, 16, 16) and weights (64, 64, 3, 3), as in a MAAM layer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 64, 16, 16, generator=generator)
    weight = torch.rand(64, 64, 3, 3, generator=generator)
    return x.to(dtype, memory_format=torch.channels_last), weight.to(dtype, memory_format=torch.channels_last)


def make_training_runner(spec: Node, *, seed: int | None, device: str) -> Runner:
    """Return a runner of a new model on `device`, in the memory format that trains fastest."""
    return Runner(build(spec, seed=seed, device=device), channels_last=True)
