"""Results for the documentation: runs without their weights, and tables of parity reports."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from maam.training.compare import markdown_table

FILES = ("results.json", "run.json", "report.md", "curves.png", "confusion_matrix.png", "fusion.png")


def publish_runs(
    runs: Annotated[Path, typer.Argument(help="folder that contains runs, such as runs/reproduce")],
    out: Annotated[Path, typer.Argument(help="folder for the copies")],
) -> None:
    """Copy the results, reports, pictures and compressed logs of runs, without weights.

    An unfinished run has no results; its log is enough for the curves.
    """
    for log in sorted(runs.glob("*/log.jsonl")):
        target = out / log.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (log.parent / name).exists():
                shutil.copyfile(log.parent / name, target / name)
        (target / "log.jsonl.gz").write_bytes(gzip.compress(log.read_bytes(), mtime=0))  # the same bytes each time
        print(target)


def parity_table(
    reports: Annotated[list[Path], typer.Argument(help="files that `maam parity --json` wrote; one column for each")],
) -> None:
    """Print parity reports as a Markdown table: the worst of all runners for each stage."""
    documents = [json.loads(path.read_text("utf-8")) for path in reports]
    rows = []
    for stage in dict.fromkeys(row["stage"] for row in documents[0]["rows"]):
        groups = [[row for row in document["rows"] if row["stage"] == stage] for document in documents]
        bounds = list(dict.fromkeys(row["bound"] for row in groups[0] if row["bound"]))
        bound = "see docs/parity.md" if len(bounds) > 1 and "x" in bounds[0] else "; ".join(bounds)
        verdicts = sorted({row["verdict"] for group in groups for row in group}, key=str.lower)
        rows.append([stage, bound, *map(_worst, groups), ", ".join(verdicts)])
    titles = [f"{document['title']}: worst abs / rel" for document in documents]
    print("\n".join(markdown_table(["stage", "bound", *titles, "verdict"], rows)))


def _worst(rows: list[dict[str, Any]]) -> str:
    """Return the largest absolute and relative difference of the judged rows, or the smallest signal-to-noise ratio."""
    judged = [row for row in rows if row["verdict"] in ("pass", "FAIL")]
    if ratios := [int(row["note"].split()[0]) for row in judged if row["note"].endswith("dB")]:
        return f"{min(ratios)} dB"
    found = [[row[kind] for row in judged if row[kind] is not None] for kind in ("absolute", "relative")]
    largest = [max(values) for values in found if values]
    return " / ".join(f"{value:.1e}" if value else "0" for value in largest)
