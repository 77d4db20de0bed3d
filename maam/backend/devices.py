"""Names of devices and precisions, and functions that choose one of those that a backend supports."""

from __future__ import annotations

from collections.abc import Sequence

from maam.errors import DeviceError

DEVICES = ("cpu", "cuda", "ascend")
_OTHER_NAMES = {"gpu": "cuda", "nvidia": "cuda", "npu": "ascend"}
"""Names of devices in other libraries."""


def choose_device(framework: str, name: str | None, available: Sequence[str]) -> str:
    """Return `name` if that device is available, and the first available device if `name` is None.

    Args:
        framework: the framework's title, for messages.
        name: "cpu", "cuda", "ascend" or None.
        available: the available devices, the best one first.

    Raises:
        DeviceError: the device is unknown or not available.
    """
    if name is None:
        return available[0]
    if name not in DEVICES:
        kind, colon, _ = str(name).lower().partition(":")
        close = _OTHER_NAMES.get(kind, kind if kind in DEVICES else None)
        hint = f"; did you mean {close!r}?" if close else ""
        if close == "cuda" and colon:
            hint += " The environment variable CUDA_VISIBLE_DEVICES chooses one of several GPUs"
        raise DeviceError(f"device: expected one of {', '.join(DEVICES)}, got {name!r}{hint}")
    if name not in available:
        raise DeviceError(
            f"device {name!r} is not available to {framework} on this machine; available: {', '.join(available)}"
        )
    return name


def choose_precision(framework: str, device: str, name: str, supported: Sequence[str]) -> str:
    """Return `name` if the device supports that precision, and the first supported precision if `name` is "auto".

    Args:
        framework: the title of the framework or engine, for messages.
        device: the device.
        name: "fp32", "bf16", "fp16" or "auto".
        supported: the supported precisions, the preferred one first.

    Raises:
        DeviceError: the device does not support the precision.
    """
    if name == "auto":
        return supported[0]
    if name not in supported:
        raise DeviceError(
            f"precision {name!r}: {framework} does not support it on {device}; supported: {', '.join(supported)}"
        )
    return name
