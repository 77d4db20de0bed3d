"""`maam demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from maam import _io, data, plots, training
from maam.backend.registry import backend_names, find_entry, is_installed, load_backend
from maam.cli.terminal import console as standard_output
from maam.cli.train import Progress
from maam.data import ImageDataset
from maam.errors import require
from maam.parity import check
from maam.parity.report import draw_depth
from maam.training import default_recipe
from maam.weights import read_weights

Array = np.ndarray[Any, Any]
PRESET = "maam_digits"
LEAST_ACCURACY = 0.97


def run(out: Path, *, epochs: int = 30, seed: int = 0) -> bool:
    """Do all of it, write the results to `out`, and tell whether everything agreed.

    Raises:
        MissingFrameworkError: PyTorch, scikit-learn or matplotlib is not installed.
    """
    for package, extra in (("torch", "torch"), ("sklearn", "train"), ("matplotlib", "train")):
        require(package, extra)
    out.mkdir(parents=True, exist_ok=True)
    console = standard_output()
    train, test = data.digits("train"), data.digits("test")
    weights = out / f"{PRESET}.safetensors"
    console.print(f"1. Training {PRESET} on {len(train):,} images of digits, in PyTorch", highlight=False)
    _train(weights, epochs=epochs, seed=seed)
    evaluating = f"2. Evaluating {weights} on {len(test)} test images, in each framework"
    console.print(evaluating, highlight=False, markup=False)
    same = _evaluate(test, weights, console)
    console.print("3. Parity of the frameworks on these weights and images", highlight=False)
    proven = _prove(test, weights, console)
    _say_what_next(out, console)
    return same and proven


def _train(weights: Path, *, epochs: int, seed: int) -> None:
    recipe = default_recipe(PRESET).replaced({"epochs": epochs, "seed": seed})
    with tempfile.TemporaryDirectory(dir=weights.parent) as folder, Progress() as progress:
        run = training.train(PRESET, recipe, out=folder, observer=progress)
        run.final.replace(weights)
        (run.path / "curves.png").replace(weights.parent / "loss.png")


def _evaluate(test: ImageDataset, weights: Path, console: Console) -> bool:
    titles = {find_entry(name).title: name for name in backend_names()}
    predictions = {title: _predict(name, weights, data.to_float(test.images)) for title, name in titles.items()}
    found = {name: array for name, array in predictions.items() if array is not None}
    for name in titles:
        accuracy = f"accuracy {(found[name] == test.labels).mean():.2%}" if name in found else "not installed"
        console.print(f"   {name:9} {accuracy}", highlight=False)
    reference = found["NumPy"]
    same = all(np.array_equal(array, reference) for array in found.values())
    count = len(found)
    console.print(f"   {'the same' if same else 'NOT the same'} prediction on every image in {count} rooms")
    names, title = test.class_names, f"{PRESET}: confusion matrix on the test images"
    plots.draw_confusion_matrix(test.labels, reference, names, weights.parent / "confusion_matrix.png", title)
    accurate = bool((reference == test.labels).mean() >= LEAST_ACCURACY)
    if not accurate:
        console.print(f"   the accuracy is below {LEAST_ACCURACY:.0%}; train for more epochs")
    return same and accurate


def _predict(name: str, weights: Path, images: Array) -> Array | None:
    """Return the predicted classes (N,) of a backend; None where it is not installed."""
    if not is_installed(name):
        return None
    backend = load_backend(name)
    return np.asarray(backend.make_runner(backend.load(weights)).forward(images).argmax(1))


def _prove(test: ImageDataset, weights: Path, console: Console) -> bool:
    from maam.cli.parity import print_report

    spec, arrays = read_weights(weights)
    images = data.to_float(test.images)
    report = check(spec, arrays, images=images, labels=test.labels, progress=lambda stage: print(f"   {stage} ..."))
    print_report(report, "digits")
    _io.write_text(weights.parent / "parity.json", report.to_json())
    draw_depth(report, weights.parent / "parity.png")
    return report.passed


def _say_what_next(out: Path, console: Console) -> None:
    console.print(
        f"\nResults in {out}: loss.png, confusion_matrix.png, parity.png, parity.json, {PRESET}.safetensors\n"
        "Next:  maam list                          all presets\n"
        "       maam info maam_cifar10_2m3         layers, shapes, parameters, MACs\n"
        "       maam data cifar10 datasets         the real CIFAR-10\n"
        "       maam parity maam_cifar10_2m3 --data cifar10 --root datasets",
        highlight=False,
        markup=False,
    )


def demo(
    out: Annotated[Path, typer.Option(help="where the results go")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train MAAM on scikit-learn's digits in PyTorch and prove the result in MindSpore and NumPy."""
    if not run(out, epochs=epochs, seed=seed):
        raise typer.Exit(1)
