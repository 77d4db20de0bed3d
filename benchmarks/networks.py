"""Accuracy on CIFAR-10 versus CPU time: the networks of maam and published ones, as a table and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.cost.cases import find_network
from maam._io import replacing, write_text
from maam.errors import MaamError
from maam.training.compare import markdown_table

ENGINES = {
    "PyTorch, eager": "PyTorch",
    "optimize, auto": "PyTorch, optimized",
    "MindSpore, graph, fused": "MindSpore, fused",
}
"""The engines of `share` that are shown, with their names here."""
UNIT = ("ResNet-20", "PyTorch, eager")
RUNS = Path("docs/results/runs")


_HEAD = """# Accuracy versus CPU time

    python -m benchmarks networks results/*/share.json --out docs/results

The table shows accuracies on the test images of CIFAR-10, and the CPU time of one thread for an image, relative to that
of ResNet-20 in eager PyTorch with the same batch. `share` measured each network in a process of its own; times of two
processes are compared by their shares of the rate of matrix products. For networks that we did not train, the table
shows the accuracy that the source published for its weights (200 epochs). The CPU time of MindSpore varies most
([why](share.md)).

![accuracy versus CPU time](networks.png)"""


class Accuracy(NamedTuple):
    """The accuracy of a network.

    Attributes:
        percent: the accuracy on the test images, in percent; the mean over the seeds.
        epochs: the number of epochs of the training.
        seeds: the number of seeds.
        source: who measured it.
    """

    percent: float
    epochs: int
    seeds: int
    source: str


_CHENYAOFO = "github.com/chenyaofo/pytorch-cifar-models"
PUBLISHED = {
    "ResNet-20": Accuracy(92.60, 200, 1, _CHENYAOFO),
    "MobileNetV2": Accuracy(93.79, 200, 1, _CHENYAOFO),
    "ShuffleNetV2": Accuracy(92.98, 200, 1, _CHENYAOFO),
}
"""Published accuracies of networks that were not trained here."""


def networks(
    shares: Annotated[
        list[Path], typer.Argument(help="the files share.json of `python -m benchmarks share --only inference --out`")
    ],
    runs: Annotated[Path, typer.Option(help="folder of published runs")] = RUNS,
    out: Annotated[Path, typer.Option(help="folder of networks.md and networks.png")] = Path("runs"),
) -> None:
    """Print accuracy, size and time of small networks on CIFAR-10, and draw accuracy by time.

    The time is CPU time for one image, relative to that of ResNet-20 in eager PyTorch with the same batch. Times of
    different files are compared by their shares of the rate of matrix products.
    """
    documents = [_read(share) for share in shares]
    times = _times([one for document in documents for one in document["inference"]])
    accuracies = {**_own(runs), **PUBLISHED}
    batches = sorted({batch for _, batch, _ in times})
    text = "\n".join(_table(times, accuracies, batches))
    typer.echo(text)
    out.mkdir(parents=True, exist_ok=True)
    environment = ", ".join(f"{name} {value}" for name, value in documents[0].get("environment", {}).items())
    write_text(out / "networks.md", "\n\n".join([_HEAD, text, f"Measured with {environment}."]) + "\n")
    _draw(times, accuracies, batches, out / "networks.png")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("inference"), list):
        raise MaamError(f"{path}: expected the share.json that `python -m benchmarks share --out DIR` writes")
    return found


def _times(speeds: list[dict[str, Any]]) -> dict[tuple[str, int, str], float]:
    """Return the time for one image by network, batch size and engine, relative to `UNIT`."""
    rows = {(one["network"], one["batch"], one["engine"]): one["share"] for one in speeds if one["engine"] in ENGINES}
    times = {key: find_network(key[0]).macs(find_network(key[0]).input_shape) / share for key, share in rows.items()}
    units = {batch: time for (network, batch, engine), time in times.items() if (network, engine) == UNIT}
    missing = {batch for _, batch, _ in rows} - units.keys()
    if missing or not rows:
        where = f"batch {', '.join(map(str, sorted(missing)))}" if missing else "any batch"
        raise MaamError(f"expected the speed of {UNIT[0]} in {UNIT[1]}, got none for {where}; add it to --networks")
    return {key: time / units[key[1]] for key, time in times.items()}


def _own(runs: Path) -> dict[str, Accuracy]:
    """Return the accuracy of each preset that was trained on CIFAR-10 here: the mean of its longest runs."""
    found: dict[str, dict[int, list[float]]] = {}
    for path in sorted(runs.glob("*/results.json")):
        recipe = json.loads(path.with_name("run.json").read_text("utf-8"))["sessions"][-1]["recipe"]
        if recipe["data"] == "cifar10" and not recipe["overrides"]:
            percents = found.setdefault(recipe["model"], {}).setdefault(recipe["epochs"], [])
            percents.append(100 * json.loads(path.read_text("utf-8"))["accuracy"])
    longest = {model: max(by_epochs.items()) for model, by_epochs in found.items()}
    return {
        model: Accuracy(statistics.mean(values), epochs, len(values), "here")
        for model, (epochs, values) in longest.items()
    }


def _table(
    times: Mapping[tuple[str, int, str], float], accuracies: Mapping[str, Accuracy], batches: list[int]
) -> list[str]:
    columns = [(batch, engine) for batch in batches for engine in ENGINES]
    head = ["network", "accuracy, %", "epochs", "seeds", "measured by", "parameters", "MACs"]
    head += [f"{ENGINES[engine]}, batch {batch}" for batch, engine in columns]
    rows = []
    for name in dict.fromkeys(network for network, _, _ in times):
        spec = find_network(name)
        accuracy = accuracies.get(name)
        known = (f"{accuracy.percent:.2f}", *map(str, accuracy[1:])) if accuracy else ("not run", "", "", "")
        cost = (f"{spec.num_parameters:,}", f"{spec.macs(spec.input_shape):,}")
        own = [times.get((name, batch, engine)) for batch, engine in columns]
        rows.append((name, *known, *cost, *("" if time is None else f"{time:.2f}" for time in own)))
    return markdown_table(head, rows)


def _draw(
    times: Mapping[tuple[str, int, str], float], accuracies: Mapping[str, Accuracy], batches: list[int], path: Path
) -> None:
    """Draw one panel for each batch size; a line joins the engines of a network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = Figure(layout="constrained", figsize=(5.5 * len(batches), 4.5))
    markers = dict(zip(ENGINES, "os^", strict=True))
    names = [name for name in dict.fromkeys(network for network, _, _ in times) if name in accuracies]
    for axis, batch in zip(figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True):
        for index, name in enumerate(names):
            color, percent = f"C{index}", accuracies[name].percent
            found = {engine: times[name, batch, engine] for engine in ENGINES if (name, batch, engine) in times}
            axis.plot(list(found.values()), [percent] * len(found), color=color, linewidth=0.8, label=name)
            for engine, time in found.items():
                axis.plot(time, percent, markers[engine], color=color)
        axis.set(xscale="log", xlabel="CPU time of an image, ResNet-20 in eager PyTorch = 1", title=f"batch {batch}")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_ylabel("CIFAR-10 test accuracy, %")
        axis.grid(which="both", alpha=0.3)
    for engine, marker in markers.items():
        axis.plot([], [], marker, color="gray", label=ENGINES[engine])
    axis.legend(fontsize="small", loc="best")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
