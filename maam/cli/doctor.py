"""`maam doctor`."""

from __future__ import annotations

import platform
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from maam import diagnosis
from maam.cli.consoles import console
from maam.diagnosis import Finding, Status
from maam.environment import environment

_COLOURS = {Status.GOOD: "green", Status.BAD: "bold red", Status.WARNING: "yellow", Status.ABSENT: "dim"}


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="leave the self-checks of the rooms out")] = False,
) -> None:
    """Show versions, devices, what works here and what helps where something does not; exit status 1 if it is bad."""
    installed, features = diagnosis.versions(), diagnosis.cpu_features()
    out = console()
    out.print(", ".join(f"{name} {version}" for name, version in installed.items()), highlight=False)
    machine = (
        f"{environment()['machine']}, {environment()['cores']} cores ({', '.join(features) or 'features unknown'})"
    )
    out.print(f"{platform.system()} {platform.machine()}, {machine}", highlight=False, markup=False)
    out.print(f"devices: {', '.join(diagnosis.devices())}", highlight=False, markup=False)
    findings = list(diagnosis.known_troubles(installed, features))
    if not quick:
        # MindSpore before the engines: some of them bring a protobuf that it must not see first
        findings += [diagnosis.check_room(name) for name in ("mindspore", "torch", "reference")]
    findings += [diagnosis.check_engine(name) for name in diagnosis.ENGINES]
    out.print(_table(findings))
    if any(finding.status is Status.BAD for finding in findings):
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table("what", "status", "found", "what helps")
    for finding in findings:
        status = Text(finding.status.value, _COLOURS[finding.status])
        table.add_row(finding.subject, status, Text(finding.text), Text(finding.remedy))
    return table
