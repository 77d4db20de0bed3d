"""Versions and machine, for reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

PACKAGES = ("maam", "numpy", "torch", "mindspore")


def environment() -> dict[str, str]:
    """Versions of Python, maam, NumPy and the frameworks, and the processor; the same keys everywhere."""
    found = {"python": platform.python_version(), "machine": _processor(), "cores": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command_line() -> str:
    """The command of this process as it is typed again: the program by its name, not by where it lies here."""
    name = Path(sys.argv[0]).name
    return shlex.join(["maam" if name == "__main__.py" else name, *sys.argv[1:]])
