"""What both rooms say of devices and precisions."""

from __future__ import annotations

from collections.abc import Sequence

from maam.errors import DeviceError

DEVICES = ("cpu", "cuda", "ascend")


def choose_device(framework: str, name: str | None, available: Sequence[str]) -> str:
    """`name` where it is available, the first of `available` where it is None.

    Raises:
        DeviceError: it is unknown, or not available to the framework here.
    """
    if name is None:
        return available[0]
    if name not in DEVICES:
        raise DeviceError(f"device: expected one of {', '.join(DEVICES)}, got {name!r}")
    if name not in available:
        raise DeviceError(f"device {name!r} is not available to {framework} here; available: {', '.join(available)}")
    return name


def choose_precision(framework: str, device: str, name: str, supported: Sequence[str]) -> str:
    """`name` where the device supports it, the first of `supported` where it is "auto".

    Raises:
        DeviceError: it is not supported.
    """
    if name == "auto":
        return supported[0]
    if name not in supported:
        raise DeviceError(f"precision {name!r}: {framework} has it not on {device}; it has {', '.join(supported)}")
    return name
