"""Results of runs: copies for the documentation, pretrained weights for the package, and tables of parity reports."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from maam._io import replacing
from maam.errors import MaamError
from maam.spec import preset
from maam.training import Recipe, default_recipe, evaluate_file
from maam.training.compare import differences, markdown_table
from maam.training.recipe import IMAGE_FOLDER
from maam.training.run_dir import CONFUSION_MATRIX, CURVES, FUSION, LOG, REPORT, RESULTS, RUN, RunFolder
from maam.weights.pretrained import Card, write_pretrained

PRETRAINED = Path("maam/weights/pretrained")
FILES = (RESULTS, RUN, REPORT, CURVES, CONFUSION_MATRIX, FUSION)


def publish_runs(
    runs: Annotated[Path, typer.Argument(help="folder that contains runs, such as runs/reproduce")],
    out: Annotated[Path, typer.Argument(help="folder for the copies")],
) -> None:
    """Copy the results, reports, pictures and compressed logs of runs, without weights.

    An unfinished run has no results; its log is enough for the curves.
    """
    for log in sorted(runs.glob(f"*/{LOG}")):
        target = out / log.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (log.parent / name).exists():
                shutil.copyfile(log.parent / name, target / name)
        (target / "log.jsonl.gz").write_bytes(gzip.compress(log.read_bytes(), mtime=0))  # the same bytes each time
        print(target)


def publish_weights(
    run: Annotated[Path, typer.Argument(help="folder of a finished run of a preset")],
    root: Annotated[Path | None, typer.Option(help="folder of the data set; default: that of the run")] = None,
    out: Annotated[Path, typer.Option(help="folder for PRESET.safetensors")] = PRETRAINED,
) -> None:
    """Write the weights of a run as pretrained weights: in float16, with a card.

    The accuracy in the card is that of the written weights in float32, on the test images.
    """
    folder = RunFolder(run)
    recipe = folder.recipe()
    if recipe.data == IMAGE_FOLDER:
        raise MaamError(f"{run}: trained on {IMAGE_FOLDER}; expected a run on a data set in memory, such as cifar10")
    height, width = preset(recipe.model or "").input_shape[1:]
    preprocessing = f"the central square, resized to {height}x{width}, pixels scaled to [0, 1]"
    names = tuple(folder.sessions()[-1]["class_names"])
    card = Card(recipe.data, names, 0.0, preprocessing, _command(recipe))
    target = out / f"{recipe.model}.safetensors"
    with replacing(target) as temporary:
        write_pretrained(folder.final, temporary, card)
        accuracy = evaluate_file(temporary, recipe.data, root or folder.sessions()[-1]["root"]).accuracy
        write_pretrained(folder.final, temporary, card._replace(accuracy=round(accuracy, 4)))
    print(f"{target}: {accuracy:.2%}, {card.command}")


def _command(recipe: Recipe) -> str:
    """Return the command that trains with a recipe."""
    changes = differences(default_recipe(recipe.model or ""), recipe)
    fields = {each.field: each.other for each in changes if each.field != "model"} | {"precision": recipe.precision}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    options = [f"-o {shlex.quote(f'{name}={text}')}" for name, text in texts.items() if fields[name] is not None]
    root = [] if recipe.data == "digits" else ["--root datasets"]
    return " ".join([f"maam train {recipe.model}", *root, *options])


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
