"""`maam predict`; what it calls has its own tests."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.image_folders import NAMES, write_folder

pytest.importorskip("torchvision")
SHIPPED = Path(__file__).parents[2] / "weights"
WEIGHTS, CLASSES = SHIPPED / "maam_cifar10_2m3.safetensors", SHIPPED / "cifar10_classes.txt"


@pytest.fixture
def pictures(tmp_path):
    return write_folder(tmp_path / "pictures", train=1, val=1, sides=(32, 33), suffix=".png") / "val"


def test_predict(run, pictures):
    result = run("predict", WEIGHTS, pictures, "--classes", CLASSES, "--top", 1, "--json", "found.json")
    assert result.status == 0
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


def test_names_that_look_like_markup(run, pictures):
    odd = pictures / "a[bold][" / "b].png"
    odd.parent.mkdir()
    (pictures / "cat" / "01.png").rename(odd)
    classes = ",".join(["[red]x[/y]", *NAMES[1:]])
    result = run("predict", WEIGHTS, odd, "--classes", classes, "--top", 10)
    assert result.status == 0
    assert str(odd) in result.out
    assert "[red]x[/y]" in result.out


def test_predict_refuses(fails, pictures, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    for arguments, message in (
        ((WEIGHTS, "no.png"), "no.png: no such file"),
        (("no.safetensors", pictures), "no.safetensors: no such file"),
        ((WEIGHTS, pictures, "--classes", "no.txt"), "--classes no.txt: no such file"),
        ((WEIGHTS, pictures, "--classes", "bad.txt"), "--classes bad.txt: cannot be read: it is no UTF-8 text"),
        ((WEIGHTS, pictures, "--framework", "jax"), "framework: expected one of torch, mindspore, reference"),
        ((WEIGHTS, pictures, "--recipe", "no"), "no recipe 'no'"),
        ((WEIGHTS, pictures, "--on-broken", "ignore"), "on_broken is 'ignore'; expected"),
        ((WEIGHTS, pictures, "-o", "images.size=64"), "recipe: images: resize is 32; expected at least size, 64"),
    ):
        assert fails("predict", *arguments).startswith(message)
