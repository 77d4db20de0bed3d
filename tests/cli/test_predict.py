"""`maam evaluate` and `maam predict`."""

import json
from pathlib import Path

import numpy as np
import pytest

from maam import reference
from tests.image_folders import NAMES, write_folder

pytest.importorskip("torchvision")
SHIPPED = Path(__file__).parents[2] / "weights"
WEIGHTS, CLASSES = SHIPPED / "maam_cifar10_2m3.safetensors", SHIPPED / "cifar10_classes.txt"
NO_WORKERS = ("--num-workers", 0)  # a process that is forked after MindSpore has run can crash


@pytest.fixture
def pictures(tmp_path):
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


def test_attention_maps_are_refused_before_the_work(fails, monkeypatch):
    """A network without gates, such as one with selective kernels, and a name that is not that of a picture."""
    monkeypatch.setattr("maam.cli.predict.predict_files", None)
    options = {"attention": "sk", "width_multiplier": 0.25, "cifar": True, "num_classes": 10}
    reference.save_weights(reference.build("mobilenet_v2", seed=0, **options), "sk.safetensors")
    for weights in (WEIGHTS, "sk.safetensors", "maam_net_s"):
        message = fails("predict", weights, "a.png", "--attention-maps", "maps.png")
        assert message.startswith(
            f"{weights}: the network has no gate, so it has no attention maps; expected attention"
        )
    for name in ("out.xyz", "out", "out.png.txt"):
        message = fails("predict", WEIGHTS, "a.png", "--attention-maps", name)
        assert message == (
            f"--attention-maps {name}: expected a file name that ends in "
            ".png, .svg, .pdf, .eps, .jpg, .jpeg, .tif, .tiff, .webp"
        )


def test_predict_shows_markup_as_text(succeeds, pictures):
    odd = pictures / "a[bold][" / "b].png"
    odd.parent.mkdir()
    (pictures / "cat" / "01.png").rename(odd)
    classes = ",".join(["[red]x[/y]", *NAMES[1:]])
    result = succeeds("predict", WEIGHTS, odd, *NO_WORKERS, "--classes", classes, "--top", 10)
    assert str(odd) in result.out
    assert "[red]x[/y]" in result.out


@pytest.mark.parametrize("framework", ["torch", "mindspore", "reference", "torch,mindspore,reference"])
def test_evaluate(succeeds, finished, framework):
    for name in framework.split(","):
        pytest.importorskip(name) if name != "reference" else None
    result = succeeds("evaluate", finished, "--data", "digits", "--framework", framework, "--json", "found.json")
    found = json.loads(Path("found.json").read_text())
    assert list(found) == framework.split(",")
    assert len({json.dumps(one["predictions"]) for one in found.values()}) == 1
    assert f"{next(iter(found.values()))['accuracy']:.2%}" in result.out
    if "," in framework:
        assert "reference: the same prediction as torch on 359 of 359 images" in result.out


def test_evaluate_with_a_limit(run, finished):
    command = ("evaluate", finished / "best.safetensors", "--data", "digits", "--limit", "20")
    assert " 20 " in run(*command).out
    result = run(*command, "--mirror", "--json", "found.json")
    mirrored = json.loads(Path("found.json").read_text())["torch"]["mirrored_accuracy"]
    assert f"{mirrored:.2%}" in result.out
    assert "mirrored" in result.out


def test_unwritable_json_is_refused_before_the_work(fails, finished, monkeypatch):
    monkeypatch.setattr("maam.cli.predict.evaluate_file", None)
    monkeypatch.setattr("maam.cli.predict.predict_files", None)
    for command in (("evaluate", finished, "--data", "digits"), ("predict", finished, "a.png")):
        for target in ("/nonexistent/x.json", "."):
            assert "expected a file in a folder that exists" in fails(*command, "--json", target)
    twice = fails("predict", finished, "a.png", "--json", "m", "--attention-maps", "m")
    assert twice == "--attention-maps m: --json writes this file too; give each result its own name"
    Path("a.png").touch()
    assert "the command reads this file" in fails("predict", finished, "a.png", "--json", "a.png")
    message = fails("evaluate", finished, "--data", "digits", "--framework", "reference,torch", "--device", "cuda:9")
    assert "got 'cuda:9'" in message
