"""The command `maam doctor`: a diagnosis of the installation."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from maam._messages import one_line
from maam._system import NUMPY_2, SLOW_ONEDNN, cpu_features, environment, find_version, release
from maam.backend.devices import DEVICES, choose_device
from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Capability
from maam.backend.registry import (
    BackendEntry,
    backend_names,
    find_entry,
    is_installed,
    load_backend,
    load_training_backend,
    trainable_names,
)
from maam.cli import completion
from maam.cli.terminal import console
from maam.errors import DeviceError, install_command
from maam.tolerance import LOGITS, REDUCED_LOGITS

Array = np.ndarray[Any, Any]
PACKAGES = (
    "maam", "numpy", "torch", "torchvision", "mindspore", "scikit-learn", "matplotlib", "timm", "mindcv",
    "huggingface_hub", "onnx", "onnxruntime", "openvino", "nncf", "executorch", "protobuf",
)  # fmt: skip
ENGINES = {"onnxruntime": "deploy", "openvino": "deploy", "nncf": "deploy", "executorch": "executorch"}
SIMILAR = "MindSpore 2.8 and 2.10 train about equally fast on CPUs without AVX-512"
OLDER = (
    "with AVX-512, a training step takes 1.22 times as long as PyTorch's with MindSpore 2.8, and 1.58 with 2.10",
    "pip install 'mindspore>=2.8,<2.9' 'numpy<2'",
)
"""The faster version of MindSpore without and with AVX-512 (docs/install.md), and how to install it."""


class Status(Enum):
    """The result of a check."""

    GOOD = "good"
    ABSENT = "not installed"
    WARNING = "warning"
    BAD = "bad"


_COLORS = {Status.GOOD: "green", Status.BAD: "bold red", Status.WARNING: "yellow", Status.ABSENT: "dim"}


class Finding(NamedTuple):
    """One line of the diagnosis; `remedy` is empty if there is nothing to do."""

    subject: str
    status: Status
    text: str
    remedy: str = ""


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="do not run the checks of the backends")] = False,
    device: Annotated[
        str | None,
        typer.Option(help="also run and train a small model on this device", autocompletion=completion.devices),
    ] = None,
) -> None:
    """Show versions and devices, check the backends and engines, and show remedies for problems.

    The exit status is 1 if a check has the status "bad".
    """
    if device is not None:
        choose_device("maam", device, DEVICES)
    installed, features = versions(), cpu_features()
    out = console()
    out.print(", ".join(f"{name} {version}" for name, version in installed.items()))
    machine = (
        f"{environment()['machine']}, {environment()['cores']} cores ({', '.join(features) or 'features unknown'})"
    )
    out.print(f"{platform.system()} {platform.machine()}, {machine}")
    out.print(f"devices: {', '.join(devices())}")
    findings = [*known_problems(installed, features), *compare_speed(installed, features)]
    if not quick:
        # MindSpore before the engines: some of them import protobuf in a way that makes its import fail
        findings += [check_backend(name) for name in reversed(backend_names())]
    findings += [check_engine(name) for name in ENGINES]
    if device is not None:
        findings += check_device(device)
    out.print(_table(findings))
    if any(finding.status is Status.BAD for finding in findings):
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table("subject", "status", "result", "remedy")
    for finding in findings:
        status = Text(finding.status.value, _COLORS[finding.status])
        table.add_row(finding.subject, status, Text(finding.text), Text(finding.remedy))
    return table


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that maam can use."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    return found | {package: version for package in PACKAGES if (version := find_version(package)) is not None}


def known_problems(installed: dict[str, str], features: list[str]) -> Iterator[Finding]:
    """Yield combinations of versions and processor that are known to fail, each with a remedy."""
    mindspore, numpy = release(installed.get("mindspore")), release(installed.get("numpy"))
    if mindspore and mindspore < NUMPY_2 and numpy >= (2,):
        text = f"MindSpore {installed['mindspore']} is compiled for numpy 1, and fails with numpy {installed['numpy']}"
        yield Finding("mindspore, numpy", Status.BAD, text, "pip install 'mindspore>=2.10'")
    if mindspore >= SLOW_ONEDNN and "avx512f" in features and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        text = f"convolutions of MindSpore {installed['mindspore']} are very slow on processors with AVX-512"
        remedy = "maam limits them to AVX2; in programs without maam, set ONEDNN_MAX_CPU_ISA=AVX2"
        yield Finding("mindspore, AVX-512", Status.WARNING, text, remedy)
    if mindspore and mindspore < (2, 7):
        text = f"maam is tested with MindSpore 2.8 and 2.10, and {installed['mindspore']} is installed"
        yield Finding("mindspore", Status.WARNING, text, "pip install 'mindspore>=2.7'")
    if not mindspore and sys.version_info >= (3, 13):
        text = "MindSpore has no wheels for Python 3.13 and later"
        yield Finding("mindspore, python", Status.WARNING, text, "use Python 3.10, 3.11 or 3.12 for MindSpore")
    if mindspore and mindspore < NUMPY_2 and "onnx" in installed:
        text = f"MindSpore {installed['mindspore']} cannot be imported after onnx"
        remedy = "import mindspore first, or set PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
        yield Finding("mindspore, onnx", Status.WARNING, text, remedy)
    if "executorch" in installed and numpy < (2,):
        text = f"ExecuTorch needs numpy 2, and numpy {installed.get('numpy', 'none')} is installed"
        yield Finding("executorch, numpy", Status.BAD, text, "pip install 'numpy>=2'")


def compare_speed(installed: dict[str, str], features: list[str]) -> Iterator[Finding]:
    """Yield the faster tested version of MindSpore on this processor; nothing if it was not measured."""
    mindspore = release(installed.get("mindspore"))
    if not mindspore or "avx2" not in features:
        return
    if "avx512f" not in features:
        yield Finding("mindspore, speed", Status.GOOD, SIMILAR)
    elif mindspore < SLOW_ONEDNN:
        yield Finding("mindspore, speed", Status.GOOD, OLDER[0])
    else:
        yield Finding("mindspore, speed", Status.WARNING, *OLDER)


def check_backend(name: str) -> Finding:
    """Build `maam_digits` in a backend, run it on two images, and compare the logits with the reference's."""
    from maam import reference

    entry = find_entry(name)
    install = install_command(entry.extra)
    if not is_installed(name):
        return Finding(name, Status.ABSENT, "not installed", install)
    images = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    expected = reference.build("maam_digits", seed=0)(images)
    start = time.perf_counter()
    try:
        backend = load_backend(name)
        logits = backend.make_runner(backend.build("maam_digits", seed=0), _uncompiled_mode(entry)).forward(images)
    except Exception as error:  # a broken installation can raise anything
        reason = one_line(error, 200)
        return Finding(name, Status.BAD, f"{type(error).__name__}: {reason}", f"reinstall it: {install}")
    seconds, difference = time.perf_counter() - start, float(np.abs(logits - expected).max())
    if not np.allclose(logits, expected, rtol=LOGITS.relative, atol=LOGITS.absolute):
        text = f"differs from the reference by {difference:.1e}; expected at most {LOGITS.absolute:.0e}"
        return Finding(name, Status.BAD, text, "run `maam parity maam_digits` to find the first layer that differs")
    return Finding(name, Status.GOOD, f"agrees with the reference to {difference:.1e} ({seconds:.1f} s)")


def _uncompiled_mode(entry: BackendEntry) -> str:
    """Return a mode that compiles nothing."""
    return next(name for name, capabilities in entry.modes.items() if Capability.COMPILED not in capabilities)


def check_engine(name: str) -> Finding:
    """Check that an inference engine can be imported."""
    if importlib.util.find_spec(name) is None:
        return Finding(name, Status.ABSENT, "not installed", install_command(ENGINES[name]))
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken installation can raise anything
        reason = one_line(error, 200)
        return Finding(name, Status.BAD, f"{type(error).__name__}: {reason}", "reinstall it")
    return Finding(name, Status.GOOD, "can be imported")


def check_device(device: str) -> list[Finding]:
    """Run and train `maam_digits` on a device, in every installed framework that has it."""
    found = [_check_device(name, device) for name in filter(is_installed, trainable_names())]
    if not any(finding.status in (Status.GOOD, Status.BAD) for finding in found):
        found.append(Finding(device, Status.BAD, "no installed framework can use this device", "see docs/install.md"))
    return found


def _check_device(name: str, device: str) -> Finding:
    from maam import reference, spec

    subject, node = f"{name} on {device}", spec.preset("maam_digits")
    rng = np.random.default_rng(0)
    images, labels = rng.random((16, *node.input_shape), np.float32), rng.integers(0, 10, 16).astype(np.int32)
    try:
        backend = load_training_backend(name)
        backend.select_device(device)
        runner = backend.make_training_runner(node, seed=0, device=device)
        difference = float(np.abs(runner.forward(images) - reference.build(node, seed=0)(images)).max())
        trainer = runner.trainer(Optimizer(lr=0.01))
        losses = [trainer.step(images, labels, 0.01) for _ in range(5)]
    except DeviceError as error:
        return Finding(subject, Status.ABSENT, str(error))
    except Exception as error:  # a broken installation can raise anything
        reason = one_line(error, 200)
        return Finding(subject, Status.BAD, f"{type(error).__name__}: {reason}", "see docs/install.md")
    bound = LOGITS.absolute if device == "cpu" else REDUCED_LOGITS
    text = (
        f"differs from the reference by {difference:.1e}, at most {bound:.0e} expected; "
        f"loss {losses[0]:.3f}, after 5 steps {losses[-1]:.3f}"
    )
    good = difference <= bound and losses[-1] < losses[0]
    return Finding(subject, Status.GOOD if good else Status.BAD, text, "" if good else "run `maam parity maam_digits`")


def devices() -> list[str]:
    """Return the devices on which an installed framework can train; a framework that cannot be imported has none."""
    found = {"cpu": "cpu"}
    for name in filter(is_installed, trainable_names()):
        with contextlib.suppress(Exception):  # a broken installation can raise anything; the backend's row reports it
            found |= load_training_backend(name).list_devices()
    return list(found.values())
