"""Devices and precisions of MindSpore."""

from __future__ import annotations

import mindspore as ms

from maam.backend.devices import choose_device, choose_precision
from maam.mindspore.runner import Runner
from maam.mindspore.weights import build
from maam.spec import Node

TARGETS = {"cpu": "CPU", "ascend": "Ascend"}


def list_devices() -> dict[str, str]:
    """Return the available devices, the best one first, each with its description."""
    found = {"ascend": "ascend"} if ms.device_context.ascend.is_available() else {}
    return {**found, "cpu": "cpu"}


def select_device(name: str | None = None) -> str:
    """Select a device in MindSpore and return its name; None selects Ascend if available, otherwise the CPU.

    Raises:
        DeviceError: the device is not available.
    """
    device = choose_device("MindSpore", name, tuple(list_devices()))
    if ms.get_context("device_target") != TARGETS[device]:  # after processes have joined it cannot be set again
        ms.set_device(TARGETS[device])
    return device


def select_precision(device: str, name: str = "auto") -> str:
    """Return the precision of that name; "auto" chooses fp16 on Ascend and fp32 on a CPU.

    Raises:
        DeviceError: the device does not support it; MindSpore has no bfloat16 kernels for CPUs.
    """
    precisions = ("fp16", "bf16", "fp32") if device == "ascend" else ("fp32", "fp16")
    return choose_precision("MindSpore", device, name, precisions)


def make_training_runner(spec: Node, *, seed: int | None, device: str) -> Runner:
    """Return a runner of a new model in graph mode on `device`, which `select_device` has selected."""
    if seed is not None:
        ms.set_seed(seed)  # for dropout masks
    return Runner(build(spec, seed=seed), graph=True)
