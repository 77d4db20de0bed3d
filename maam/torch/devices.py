"""The devices that PyTorch has here, what they are fast at, and models on them."""

from __future__ import annotations

import torch

from maam.spec import Node
from maam.torch.distributed import join_world, leave_world
from maam.torch.models import build
from maam.torch.runner import Runner
from maam.training.devices import choose_device, choose_precision

__all__ = ["join_world", "leave_world", "make_runner", "select_device", "select_precision"]


def select_device(name: str | None = None) -> str:
    """The device of that name, a GPU or else the CPU where `name` is None.

    Raises:
        DeviceError: there is no such device here.
    """
    return choose_device("PyTorch", name, ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",))


def select_precision(device: str, name: str = "auto") -> str:
    """The precision of that name, or with "auto" bf16 where the device computes in it natively and fp32 elsewhere.

    Raises:
        DeviceError: the device does not support it.
    """
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else has_fast_bf16()
    precisions = ("bf16", "fp32", "fp16") if native else ("fp32", "bf16", "fp16")
    return choose_precision("PyTorch", device, name, precisions)


def has_fast_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))


def make_runner(spec: Node, *, seed: int | None, device: str) -> Runner:
    """A runner of a new model on `device`, in the memory format that trains fastest."""
    return Runner(build(spec, seed=seed, device=device), channels_last=True)
