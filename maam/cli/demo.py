"""The command `maam demo`: train MAAM on scikit-learn's digits, then check the result in all backends."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from maam import _io, data, plots
from maam.backend.registry import backend_names, find_entry, is_installed, load_backend
from maam.cli.parity import print_report
from maam.cli.terminal import console as standard_output
from maam.cli.train import Progress
from maam.data import ImageDataset
from maam.errors import require
from maam.parity import check
from maam.parity.report import draw_depth
from maam.training import default_recipe, train
from maam.weights import read_weights

Array = np.ndarray[Any, Any]
PRESET = "maam_digits"
LEAST_ACCURACY = 0.97
STAGES = ("exchange", "layers", "forward", "gradients")
"""The quick stages of `maam parity`: training steps, the free run and compiled modes take minutes."""


def demo(
    out: Annotated[Path, typer.Option(help="folder for weights, pictures and the report")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="number of epochs")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="seed of the training")] = 0,
) -> None:
    """Train MAAM on scikit-learn's digits in PyTorch, then check the result in MindSpore and NumPy.

    This takes less than 2 minutes. The exit status is 1 if the accuracy is low or the frameworks differ.
    """
    if not run(out, epochs=epochs, seed=seed):
        raise typer.Exit(1)


def run(out: Path, *, epochs: int = 30, seed: int = 0) -> bool:
    """Run the demo, write its results to the folder `out`, and return whether all frameworks agree.

    Raises:
        MissingFrameworkError: PyTorch, scikit-learn or matplotlib is not installed.
    """
    for package, extra in (("torch", "torch"), ("sklearn", "train"), ("matplotlib", "train")):
        require(package, extra)
    out.mkdir(parents=True, exist_ok=True)
    console = standard_output()
    training, test = data.digits("train"), data.digits("test")
    weights = out / f"{PRESET}.safetensors"
    console.print(f"1. Train {PRESET} on {len(training):,} images of digits in PyTorch")
    _train(weights, epochs=epochs, seed=seed)
    console.print(f"2. Evaluate {weights} on {len(test)} test images in every backend")
    same = _evaluate(test, weights, console)
    console.print("3. Compare the frameworks with a float64 reference on these weights and images")
    agree = _compare(test, weights)
    console.print(f"   This is the short table. The full one: maam parity {weights} --data digits")
    _print_next_steps(out, console)
    return same and agree


def _train(weights: Path, *, epochs: int, seed: int) -> None:
    recipe = default_recipe(PRESET).replaced({"epochs": epochs, "seed": seed})
    with tempfile.TemporaryDirectory(dir=weights.parent) as folder, Progress() as progress:
        found = train(PRESET, recipe, out=folder, observer=progress)
        found.final.replace(weights)
        (found.path / "curves.png").replace(weights.parent / "loss.png")


def _evaluate(test: ImageDataset, weights: Path, console: Console) -> bool:
    """Print the accuracy in each backend; return whether it is high and all predictions are equal."""
    found: dict[str, Array] = {}
    for name in backend_names():
        title, predictions = find_entry(name).title, _predict(name, weights, data.to_float(test.images))
        if predictions is None:
            console.print(f"   {title:9} not installed")
        else:
            found[name] = predictions
            console.print(f"   {title:9} accuracy {(predictions == test.labels).mean():.2%}")
    reference = found["reference"]
    same = all(np.array_equal(array, reference) for array in found.values())
    verdict = "the same prediction" if same else "NOT the same prediction"
    console.print(f"   {verdict} for every image in {len(found)} backends")
    plots.draw_confusion_matrix(
        test.labels,
        reference,
        test.class_names,
        weights.parent / "confusion_matrix.png",
        f"{PRESET}: confusion matrix on the test images",
    )
    accurate = bool((reference == test.labels).mean() >= LEAST_ACCURACY)
    if not accurate:
        console.print(f"   the accuracy is below {LEAST_ACCURACY:.0%}; train for more epochs (--epochs)")
    return same and accurate


def _predict(name: str, weights: Path, images: Array) -> Array | None:
    """Return the predicted classes (N,) of a backend; None if it is not installed."""
    if not is_installed(name):
        return None
    backend = load_backend(name)
    return np.asarray(backend.make_runner(backend.load(weights)).forward(images).argmax(1))


def _compare(test: ImageDataset, weights: Path) -> bool:
    """Print and write the short parity report; return whether it passed."""
    spec, arrays = read_weights(weights)
    report = check(
        spec,
        arrays,
        images=data.to_float(test.images),
        labels=test.labels,
        stages=STAGES,
        compiled=False,
        progress=lambda stage: print(f"   {stage} ..."),
    )
    print_report(report, "digits")
    _io.write_text(weights.parent / "parity.json", report.to_json())
    draw_depth(report, weights.parent / "parity.png")
    return report.passed


def _print_next_steps(out: Path, console: Console) -> None:
    console.print(
        f"\nResults in {out}: loss.png, confusion_matrix.png, parity.png, parity.json, {PRESET}.safetensors\n"
        "Next:  maam list                          all presets\n"
        "       maam info maam_cifar10_2m3         layers, shapes, parameters, MACs\n"
        "       maam data cifar10 datasets         download CIFAR-10\n"
        "       maam parity maam_cifar10_2m3 --data cifar10 --root datasets",
    )
