"""The devices that MindSpore has here, what they compute in, and models on them."""

from __future__ import annotations

import mindspore as ms

from maam.backend.devices import choose_device, choose_precision
from maam.mindspore.runner import Runner
from maam.mindspore.weights import build
from maam.spec import Node

TARGETS = {"cpu": "CPU", "cuda": "GPU", "ascend": "Ascend"}


def list_devices() -> dict[str, str]:
    """Return the available devices, the best one first, each with its description."""
    found = {"ascend": "ascend"} if ms.device_context.ascend.is_available() else {}
    return {**found, "cpu": "cpu"}


def select_device(name: str | None = None) -> str:
    """The device of that name, Ascend or else the CPU where `name` is None; MindSpore is set to it.

    Raises:
        DeviceError: there is no such device here.
    """
    device = choose_device("MindSpore", name, tuple(list_devices()))
    if ms.get_context("device_target") != TARGETS[device]:  # once processes are joined, it cannot even be set anew
        ms.set_device(TARGETS[device])
    return device


def select_precision(device: str, name: str = "auto") -> str:
    """The precision of that name; "auto" is fp16 on Ascend, and fp32 on a CPU.

    Raises:
        DeviceError: the device does not support it: no CPU kernel of MindSpore takes bfloat16.
    """
    precisions = ("fp16", "bf16", "fp32") if device == "ascend" else ("fp32", "fp16")
    return choose_precision("MindSpore", device, name, precisions)


def make_runner(spec: Node, *, seed: int | None, device: str) -> Runner:
    """A runner of a new model on `device` (which `select_device` has set), in graph mode."""
    if seed is not None:
        ms.set_seed(seed)  # of dropout
    return Runner(build(spec, seed=seed), graph=True)
