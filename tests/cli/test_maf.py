"""`maam maf` end to end on a small image folder of real CIFAR-10 images."""

import inspect
from pathlib import Path

import pytest

from maam import spec
from maam.cli.maf import maf
from tests.image_folders import write_folder

pytest.importorskip("sklearn")
SMALL = {"overrides.num_classes": 5, "overrides.width_multiplier": 0.25, "overrides.cifar": "true"}
IMAGES = {"images.size": 32, "images.resize": 36, "batch_size": 16}
OPTIONS = [part for name, value in (SMALL | IMAGES).items() for part in ("-o", f"{name}={value}")]


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "images", classes=5)


def test_defaults_of_the_authors():
    defaults = {name: parameter.default for name, parameter in inspect.signature(maf).parameters.items()}
    assert defaults["arch"] == "MAFCV1"
    assert defaults["root"] == Path("../../../datasets/ImageNet")
    assert defaults["evaluate"] is False


@pytest.mark.parametrize("framework", ["torch", pytest.param("mindspore", marks=pytest.mark.slow)])
def test_train_and_evaluate(succeeds, root, framework):
    pytest.importorskip(framework)
    common = ["-a", "MAFCV1", "--root", root, "--framework", framework, "-j", 0, *OPTIONS]
    succeeds("maf", *common, "--epochs", 1)
    folder = Path("runs/MAFCV1_")
    assert {"final.safetensors", "best.safetensors", "report.md"} <= {path.name for path in folder.iterdir()}
    measured = succeeds("maf", "-e", *common)
    assert "top 5" in measured.out
    assert "100.00%" in measured.out  # top 5 of five classes


def test_published_checkpoint_is_evaluated(succeeds, fails, root):
    torch = pytest.importorskip("torch")
    from maam.torch import build

    overrides = {"num_classes": 5, "width_multiplier": 0.25, "cifar": True}
    state = build(spec.preset("mafc_v2", **overrides), seed=0).state_dict()
    saved = {"epoch": 100, "arch": "MAFCV2", "best_prec1": 70.0, "optimizer": {}}
    saved["state_dict"] = {f"module.{name}": tensor for name, tensor in state.items()}
    Path("runs/MAFCV2_").mkdir(parents=True)
    torch.save(saved, "runs/MAFCV2_/model_best.pth.tar")
    assert "top 5" in succeeds("maf", "-a", "MAFCV2", "-e", "--root", root, "-j", 0, *OPTIONS).out
    torch.save(saved, "runs/MAFCV2_/another.pth.tar")
    message = fails("maf", "-a", "MAFCV2", "-e", "--root", root, *OPTIONS)
    assert message.startswith("runs/MAFCV2_: 2 checkpoints; expected one of final.safetensors, ")


def test_missing_files(fails, root):
    message = fails("maf", "-a", "MAFCV3", "-e", "--root", root)
    assert message.startswith("runs/MAFCV3_: no checkpoint; expected one of final.safetensors, *.pth")
    assert message.endswith("train with `maam maf -a MAFCV3`, or put the published checkpoint there")
    pytest.importorskip("torch")
    expected = "../../../datasets/ImageNet/train: no such folder; expected ../../../datasets/ImageNet/train/CLASS/*.jpg"
    assert fails("maf").startswith(expected)
    assert fails("maf", "-e", "--epochs", 3).startswith("--epochs: this has no effect with -e (--evaluate)")
    assert fails("maf", "-a", "MAFCV9").startswith("no preset 'MAFCV9'")
