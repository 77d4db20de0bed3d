"""Figures of an evaluation, and what is refused before one."""

import numpy as np
import pytest

from maam import spec
from maam.errors import DataError, DeviceError
from maam.training import default_recipe, evaluate_file
from maam.training.evaluate import Evaluation
from maam.training.sources import open_source


def test_of_equal_logits_the_first_counts():
    constant = Evaluation(np.zeros((10, 10), np.float32), np.arange(10, dtype=np.int32))
    assert constant.top(1) == constant.accuracy == 0.1
    assert constant.top(5) == 0.5
    assert constant.top(10) == 1


def test_what_is_no_number_is_not_right():
    found = Evaluation(np.full((2, 10), np.nan, np.float32), np.array([1, 2], np.int32))
    assert found.top(5) == 0


def test_top_counts():
    logits = np.float32([[3, 1, 2], [1, 3, 2]])
    found = Evaluation(logits, np.int32([2, 0]))
    assert [found.top(count) for count in (1, 2, 3)] == [0, 0.5, 1]


def test_means_over_the_classes():
    """Of class 0 one of two is found, of class 1 both, and one image of class 0 is taken for class 1."""
    logits = np.float32([[1, 0], [0, 1], [0, 1], [0, 1]])
    found = Evaluation(logits, np.int32([0, 0, 1, 1])).macro()
    assert found == pytest.approx({"precision": 5 / 6, "recall": 3 / 4, "f1": 11 / 15})


def test_more_processes_than_images_to_evaluate_on():
    with pytest.raises(DataError, match=r"^359 images to evaluate on, but 1000 processes; start fewer$"):
        open_source(default_recipe("maam_digits"), None, spec.preset("maam_digits"), share=(0, 1000))


def test_the_reference_has_one_device(done):
    with pytest.raises(DeviceError, match="device 'cuda': the reference computes on the cpu"):
        evaluate_file(done.path, "digits", framework="reference", device="cuda")
    assert len(evaluate_file(done.path, "digits", framework="reference", device="cpu", limit=3).labels) == 3
