"""Copy runs into the documentation: results, report, pictures, and the log compressed; no weights.

A run that is not finished has no results: what is copied of it is the log, which the curves are drawn from.

Usage: python tools/publish_runs.py RUNS OUT     (RUNS: a folder of runs, such as runs/reproduce)
"""

import gzip
import shutil
import sys
from pathlib import Path

KEPT = ("results.json", "run.json", "report.md", "curves.png", "confusion_matrix.png", "fusion.png")


def publish(run, out):
    """Copy one run; the log is compressed to the same bytes each time."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).exists():
            shutil.copyfile(run / name, out / name)
    packed = gzip.compress((run / "log.jsonl").read_bytes(), mtime=0)
    (out / "log.jsonl.gz").write_bytes(packed)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    runs, out = map(Path, sys.argv[1:])
    for log in sorted(runs.glob("*/log.jsonl")):
        publish(log.parent, out / log.parent.name)
        print(out / log.parent.name)


if __name__ == "__main__":
    main()
