"""Turn the JSON of `maam parity --json` into the Markdown tables of the documentation.

Usage: python tools/parity_table.py REPORT.json...   (worst of all runners, a column for each report)
"""

import json
import sys
from pathlib import Path


def worst(rows):
    """The largest difference over the runners, the bound, and the verdict that a reader should know."""
    judged = [row for row in rows if row["verdict"] in ("pass", "FAIL")]
    verdicts = sorted({row["verdict"] for row in rows})
    absolute = max((row["absolute"] for row in judged if row["absolute"] is not None), default=None)
    relative = max((row["relative"] for row in judged if row["relative"] is not None), default=None)
    notes = {row["note"] for row in judged if row["note"].endswith("dB")}
    if notes:
        return f"{min(int(note.split()[0]) for note in notes)} dB", verdicts
    numbers = [f"{value:.1e}" if value else "0" for value in (absolute, relative) if value is not None]
    return " / ".join(numbers), verdicts


def main():
    reports = [json.loads(Path(name).read_text()) for name in sys.argv[1:]] or sys.exit(__doc__)
    titles = [report["title"] for report in reports]
    print("| stage | bound |", " | ".join(f"{title}: worst abs / rel" for title in titles), "| verdict |")
    print("| --- | --- |", " | ".join("---" for _ in titles), "| --- |")
    for stage in dict.fromkeys(row["stage"] for row in reports[0]["rows"]):
        groups = [[row for row in report["rows"] if row["stage"] == stage] for report in reports]
        cells = [worst(rows) for rows in groups]
        bounds = dict.fromkeys(row["bound"] for row in groups[0] if row["bound"])
        bound = "see docs/parity.md" if len(bounds) > 1 and "x" in next(iter(bounds)) else "; ".join(bounds)
        verdict = ", ".join(sorted({v for _, verdicts in cells for v in verdicts}, key=str.lower))
        print(f"| {stage} | {bound} |", " | ".join(text for text, _ in cells), f"| {verdict} |")


if __name__ == "__main__":
    main()
