"""`maam evaluate`, `maam predict`, and `maam maf` on a small image folder of real CIFAR-10 images."""

import json
from pathlib import Path

import numpy as np
import pytest

from maam import reference, spec
from maam.cli import terminal
from tests.image_folders import NAMES, write_folder

SHIPPED = Path(__file__).parents[2] / "weights"
WEIGHTS, CLASSES = SHIPPED / "maam_cifar10_2m3.safetensors", SHIPPED / "cifar10_classes.txt"
NO_WORKERS = ("--num-workers", 0)  # a process that is forked after MindSpore has run can crash
SMALL = {"num_classes": 5, "width_multiplier": 0.25, "cifar": True}
FIELDS = {f"overrides.{name}": str(value).lower() for name, value in SMALL.items()}
FIELDS |= {"images.size": 32, "images.resize": 36, "batch_size": 16}
OPTIONS = [part for name, value in FIELDS.items() for part in ("-o", f"{name}={value}")]


@pytest.fixture
def pictures(tmp_path):
    pytest.importorskip("torchvision")
    return write_folder(tmp_path / "pictures", train=1, val=1, sides=(32, 33), suffix=".png") / "val"


def test_predict(succeeds, pictures):
    options = (*NO_WORKERS, "--classes", CLASSES, "--top", 1, "--json", "found.json")
    result = succeeds("predict", WEIGHTS, pictures, *options)
    found = json.loads(Path("found.json").read_text())
    assert found["class_names"] == list(NAMES)
    shares = found["probabilities"]
    assert list(shares) == [str(pictures / name / "01.png") for name in NAMES]
    best = [NAMES[np.argmax(one)] for one in shares.values()]
    assert np.mean([name == own for name, own in zip(best, NAMES, strict=True)]) >= 0.7
    assert all(sum(one) == pytest.approx(1) for one in shares.values())
    for (path, one), name in zip(shares.items(), best, strict=True):
        line = next(line for line in result.out.splitlines() if path in line)
        assert name in line
        assert f"{max(one):.1%}" in line


def test_attention_maps(succeeds, pictures):
    """Each gate of a network has a map of its own size; the picture shows them over the images."""
    from maam.training import attention_maps, read_recipe

    options = {"attention": "coord", "width_multiplier": 0.25, "cifar": True, "num_classes": 10}
    reference.save_weights(reference.build("mobilenet_v2", seed=0, **options), "net.safetensors")
    files = sorted(pictures.rglob("*.png"))[:2]
    succeeds("predict", "net.safetensors", *files, *NO_WORKERS, "--recipe", "cifar10", "--attention-maps", "maps.png")
    assert Path("maps.png").stat().st_size > 1000
    found = attention_maps("net.safetensors", files, recipe=read_recipe("cifar10"))
    assert [Path(one.path) for one in found] == files
    sizes = [one.shape for one in found[0].maps.values()]
    assert len(sizes) == 17
    assert (sizes[0], sizes[-1]) == ((32, 32), (4, 4))
    assert all(((m > 0) & (m < 1)).all() for one in found for m in one.maps.values())
    first, second = (one.maps["backbone.stage1.unit1.cbamm"] for one in found)
    assert not np.array_equal(first, second)


def test_predict_shows_markup_as_text(succeeds, pictures):
    odd = pictures / "a[bold][" / "b].png"
    odd.parent.mkdir()
    (pictures / "cat" / "01.png").rename(odd)
    classes = ",".join(["[red]x[/y]", *NAMES[1:]])
    result = succeeds("predict", WEIGHTS, odd, *NO_WORKERS, "--classes", classes, "--top", 10)
    assert str(odd) in result.out
    assert "[red]x[/y]" in result.out


@pytest.mark.parametrize("framework", ["torch", "mindspore", "reference", "torch,mindspore,reference"])
def test_evaluate(succeeds, finished, monkeypatch, framework):
    names = framework.split(",")
    for name in {"torchvision", *names} - {"reference"}:
        pytest.importorskip(name)
    monkeypatch.setattr(terminal, "SECONDS", 0.0)
    result = succeeds("evaluate", finished, "--data", "digits", "--framework", framework, "--json", "found.json")
    found = json.loads(Path("found.json").read_text())
    assert list(found) == names
    assert len({json.dumps(one["predictions"]) for one in found.values()}) == 1
    assert f"{next(iter(found.values()))['accuracy']:.2%}" in result.out
    assert len(names) == 1 or "reference: the same prediction as torch on 359 of 359 images" in result.out
    assert result.err.startswith(f"{names[0]}: 0%")


def test_evaluate_with_a_limit(run, finished):
    pytest.importorskip("torchvision")
    command = ("evaluate", finished / "best.safetensors", "--data", "digits", "--limit", "20")
    assert " 20 " in run(*command).out
    result = run(*command, "--mirror", "--json", "found.json")
    mirrored = json.loads(Path("found.json").read_text())["torch"]["mirrored_accuracy"]
    assert f"{mirrored:.2%}" in result.out
    assert "mirrored" in result.out


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("sklearn")
    return write_folder(tmp_path / "images", classes=5)


@pytest.mark.parametrize("framework", ["torch", pytest.param("mindspore", marks=pytest.mark.slow)])
def test_maf_trains_and_evaluates(succeeds, root, framework):
    pytest.importorskip(framework)
    common = ["-a", "MAFCV1", "--root", root, "--framework", framework, "-j", 0, *OPTIONS]
    succeeds("maf", *common, "--epochs", 1)
    written = {path.name for path in Path("runs/MAFCV1_").iterdir()}
    assert {"final.safetensors", "best.safetensors", "report.md"} <= written
    measured = succeeds("maf", "-e", *common)
    assert "top 5" in measured.out
    assert "100.00%" in measured.out  # top 5 of five classes


def test_maf_evaluates_a_published_checkpoint(succeeds, fails, root):
    torch = pytest.importorskip("torch")
    from maam.torch import build

    state = build(spec.preset("mafc_v2", **SMALL), seed=0).state_dict()
    saved = {"epoch": 100, "arch": "MAFCV2", "best_prec1": 70.0, "optimizer": {}}
    saved["state_dict"] = {f"module.{name}": tensor for name, tensor in state.items()}
    Path("runs/MAFCV2_").mkdir(parents=True)
    torch.save(saved, "runs/MAFCV2_/model_best.pth.tar")
    assert "top 5" in succeeds("maf", "-a", "MAFCV2", "-e", "--root", root, "-j", 0, *OPTIONS).out
    torch.save(saved, "runs/MAFCV2_/another.pth.tar")
    message = fails("maf", "-a", "MAFCV2", "-e", "--root", root, *OPTIONS)
    assert message.startswith("runs/MAFCV2_: 2 checkpoints; expected one of final.safetensors, ")
