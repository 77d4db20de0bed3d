"""A check of the PyTorch backend on a GPU: parity, precisions, distributed training, `optimize` and training speed."""

from __future__ import annotations

import json
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks import gpu_sections as sections
from benchmarks.gpu_sections import Setting
from maam._io import write_text
from maam._system import command_line, environment
from maam.cli.options import split
from maam.errors import MaamError
from maam.parity import Verdict
from maam.spec import preset
from maam.torch.devices import list_devices, select_device
from maam.training.compare import markdown_table

Document = dict[str, Any]
SECTIONS: dict[str, tuple[Callable[[Setting], Iterator[dict[str, Any]]], float]] = {
    "rates": (sections.measure_rates, 0.06),
    "parity": (sections.check_parity, 0.45),
    "precisions": (sections.check_precisions, 0.6),
    "distributed": (sections.check_distributed, 0.65),
    "optimize": (sections.check_optimize, 0.82),
    "training": (sections.measure_training, 1.0),
}
"""Each section with the share of the time that may be spent when it ends; unused time goes to the next ones."""


class OutOfTimeError(BaseException):
    """The time of a section is over; not an Exception, so that no library catches it."""


@dataclass
class Section:
    """The findings of a section.

    Attributes:
        name: its name in `SECTIONS`.
        rows: the rows of its table, as columns by name.
        seconds: elapsed time.
        error: why it ended early; empty if it did not.
        details: the traceback of an error.
    """

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    details: str = ""

    @property
    def failed(self) -> bool:
        """Whether a row failed, or an error ended the section."""
        return bool(self.details) or any(row.get("verdict") == Verdict.FAIL.value for row in self.rows)


def gpu(
    device: Annotated[str, typer.Option(help="cuda; or cpu, to test this program without a GPU")] = "cuda",
    models: Annotated[str, typer.Option(help="comma-separated presets")] = ",".join(sections.MODELS),
    only: Annotated[str, typer.Option(help=f"comma-separated: {', '.join(SECTIONS)}")] = ",".join(SECTIONS),
    batch_size: Annotated[int, typer.Option(min=2, help="images in a batch of the speed measurements")] = 1024,
    minutes: Annotated[float, typer.Option(min=0.01, help="time limit; what it leaves out is listed")] = 8.0,
    out: Annotated[Path, typer.Option(help="folder for gpu.json and gpu.md")] = Path("results/gpu"),
) -> None:
    """Check and measure the PyTorch backend on a GPU, without network and data sets, in at most 8 minutes.

    The results are written after each section. The exit status is 1 if a row failed or a section ended in an error.
    """
    chosen = split("--only", only, tuple(SECTIONS))
    names = split("--models", models)
    for name in names:
        preset(name)
    if device not in ("cpu", "cuda"):
        raise MaamError(f"--device: expected cuda or cpu, got {device[:60]!r}")
    setting = Setting(select_device(device), tuple(names), batch_size)
    out.mkdir(parents=True, exist_ok=True)
    console, start = Console(stderr=True), time.monotonic()
    found: list[Section] = []
    for name in chosen:
        function, share = SECTIONS[name]
        console.print(f"{name} ...", highlight=False)
        found.append(run_section(name, function, setting, start + 60 * minutes * share - time.monotonic()))
        write_results(out, describe(setting, found, time.monotonic() - start))
    typer.echo((out / "gpu.md").read_text("utf-8"))
    if any(section.failed for section in found):
        raise typer.Exit(1)


def run_section(
    name: str, function: Callable[[Setting], Iterator[dict[str, Any]]], setting: Setting, seconds: float
) -> Section:
    """Run a section for at most a number of seconds, and return its findings up to then.

    An error ends only its section.
    """
    section, start = Section(name), time.monotonic()
    try:
        with time_limit(seconds):
            for row in function(setting):
                section.rows.append(row)
    except OutOfTimeError:
        section.error = "stopped at its time limit; the rest was not run"
    except Exception as error:  # the other sections must run whatever a driver or library raises
        section.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        section.details = traceback.format_exc()
    section.seconds = time.monotonic() - start
    return section


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block after a number of seconds; without POSIX signals there is no limit."""
    if seconds <= 0:
        raise OutOfTimeError
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTimeError

    handler = signal.signal(signal.SIGALRM, stop)
    # It repeats, because code that a library calls, such as a destructor, can swallow the exception.
    before, start = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)[0], time.monotonic()
    try:
        yield
    finally:
        left = max(before - (time.monotonic() - start), 1e-3) if before else 0.0
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left)  # a limit that was set around this one


def describe(setting: Setting, found: Sequence[Section], seconds: float) -> Document:
    """Return the results as JSON data."""
    return {
        "command": command_line(),
        "device": list_devices()[setting.device],
        "environment": environment() | _accelerator(setting.device),
        "models": list(setting.models),
        "batch_size": setting.batch_size,
        "seconds": round(seconds, 1),
        "passed": not any(section.failed for section in found),
        "sections": [vars(section) for section in found],
    }


def _accelerator(device: str) -> dict[str, str]:
    if device == "cpu":
        return {"threads": str(torch.get_num_threads())}
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "compute capability": f"{properties.major}.{properties.minor}",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def write_results(out: Path, document: Document) -> None:
    """Write gpu.json and gpu.md to a folder; each file is replaced as a whole."""
    write_text(out / "gpu.json", json.dumps(document, indent=1) + "\n")
    write_text(out / "gpu.md", to_markdown(document))


def to_markdown(document: Mapping[str, Any]) -> str:
    """Return the results as a page."""
    facts = ", ".join(f"{name} {value}" for name, value in document["environment"].items())
    verdict = "passed" if document["passed"] else "FAILED"
    text = [
        f"# The PyTorch backend on {document['device']}: {verdict}",
        f"    {document['command']}",
        f"{document['seconds']:.0f} seconds. {facts}.",
    ]
    for section in document["sections"]:
        text.append(f"## {sections.TITLES[section['name']]}")
        text.append(sections.NOTES[section["name"]])
        if section["rows"]:
            head = list(dict.fromkeys(name for row in section["rows"] for name in row))
            cells = [tuple(_cell(row.get(name)) for name in head) for row in section["rows"]]
            text.append("\n".join(markdown_table(tuple(head), cells)))
        if section["error"]:
            text.append(f"**{section['error']}**")
    return "\n\n".join(text) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value).replace("|", "/")
