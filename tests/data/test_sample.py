"""The sample of real test images, and the script that makes it."""

import runpy
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TOOL = HERE.parents[1] / "tools" / "make_cifar10_sample.py"


def test_the_sample_holds_real_images_in_test_order():
    with np.load(HERE / "cifar10_sample.npz") as content:
        images, labels = content["images"], content["labels"]
    assert (images.shape, images.dtype, labels.dtype) == ((320, 3, 32, 32), np.uint8, np.int32)
    assert np.bincount(labels).tolist() == [32] * 10
    # CIFAR-10's test set begins with a cat, two ships, an airplane and two frogs.
    assert labels[:6].tolist() == [3, 8, 8, 0, 6, 6]
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)) / 255, [0.494, 0.485, 0.450], atol=0.03)


def test_the_script_takes_the_first_images_of_each_class(write_binary, tmp_path, monkeypatch):
    content = write_binary("cifar10", tmp_path)
    out = tmp_path / "out.npz"
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(tmp_path), str(out), "--per-class", "1"])
    runpy.run_path(str(TOOL), run_name="__main__")
    with np.load(out) as written:
        np.testing.assert_array_equal(written["labels"], content.labels["test_batch"]["class"])
        np.testing.assert_array_equal(written["images"].reshape(10, -1), content.pixels["test_batch"])
