"""`maam parity`: options, verdicts and errors. tests/parity tests the comparisons."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from maam import data, spec
from maam.data import ImageDataset
from tests.image_folders import SAMPLE

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ("--frameworks", "torch", "--no-compiled", "--stages", "exchange,forward")


def test_passing_run(succeeds):
    result = succeeds("parity", "maam_digits", *TINY)
    assert result.err == "exchange ...\nforward ...\n"
    lines = result.out.splitlines()
    stages = ("weight exchange", "logits, eval", "logits, train", "running statistics, whole model")
    assert [(row[0], row[1], row[5]) for row in result.rows] == [(stage, "torch", "pass") for stage in stages]
    assert any(line.startswith("maam_digits, random images; python ") for line in lines)
    assert lines[-1] == "All results that were compared agree."


def test_models_of_every_kind(succeeds, digits, layer, document):
    nodes = (spec.maam(2, num_agents=2), spec.Linear(in_features=4, out_features=2))
    nodes += (spec.preset("maam_digits", channels=4).replace(name="[/x] $a_"),)
    for model in (digits, layer, *(document(node, f"{index}.json") for index, node in enumerate(nodes))):
        result = succeeds("parity", model, *TINY, "--batch-size", 2, "--seed", 3)
        assert result.out.endswith("All results that were compared agree.\n")


def test_json_and_plot(succeeds, tmp_path):
    outputs = ("--json", "report.json", "--html", "report.html", "--plot", "depth.png")
    succeeds("parity", "maam_digits", *TINY, "--stages", "layers", *outputs)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "report.html").read_text().count("<circle") == len(report["depth"])
    assert report["passed"] is True
    assert {row["verdict"] for row in report["rows"]} == {"pass"}
    assert {point["layer"] for point in report["depth"]} == {path for path, _ in spec.preset("maam_digits").walk()}
    picture = (tmp_path / "depth.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 10_000


def test_digits_and_cifar(succeeds, monkeypatch):
    with np.load(SAMPLE) as content:
        dataset = ImageDataset(content["images"], content["labels"], tuple("0123456789"))
    asked = []
    monkeypatch.setattr(data, "cifar10", lambda root, split: asked.append((root, split)) or dataset)
    result = succeeds("parity", "cnn", *TINY, "--data", "cifar10", "--root", "sets", "--stages", "forward")
    assert asked == [(Path("sets"), "test")]
    assert "cnn, cifar10 images; " in result.out
    pytest.importorskip("sklearn")
    assert "maam_digits, digits images; " in succeeds("parity", "maam_digits", *TINY, "--data", "digits").out


def test_difference_is_named_and_ends_with_status_1(run, monkeypatch, tmp_path):
    from maam.torch.runner import Runner

    write = Runner.write_arrays

    def write_wrong_bias(self, arrays):
        write(self, {**arrays, "reduce.bn.bias": arrays["reduce.bn.bias"] + 1})

    monkeypatch.setattr(Runner, "write_arrays", write_wrong_bias)
    result = run("parity", "maam_digits", *TINY, "--json", "report.json")
    assert result.status == 1
    assert result.out.splitlines()[-1] == "FAIL: the first layer that differs is reduce.bn.bias"
    assert "first at reduce.bn.bias" in result.out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["passed"], report["first_difference"]) == (False, "reduce.bn.bias")


def test_missing_framework_is_not_run(run, succeeds, monkeypatch):
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None if name == "mindspore" else name)
    options = ("--no-compiled", "--stages", "forward")
    result = succeeds("parity", "maam_digits", *options)
    assert result.out.count("NOT RUN") == 2
    assert "mindspore is not installed; run: pip install 'maam[mindspore]'" in result.out
    result = run("parity", "maam_digits", *options, "--require-all")
    assert result.status == 1
    assert result.err.endswith("maam: --require-all: not every stage ran; see NOT RUN in the table for the reasons\n")
    result = run("parity", "maam_digits", "--frameworks", "mindspore", "--stages", "forward")
    assert result.status == 1
    assert result.out.endswith("Nothing was compared.\n")


@pytest.mark.parametrize("own", [None, "here"])
def test_mindspore_leaves_no_folder_where_a_dtype_has_no_kernel(run, document, tmp_path, monkeypatch, own):
    pytest.importorskip("mindspore")
    monkeypatch.delenv("MS_OM_PATH", raising=False)
    if own is not None:
        (tmp_path / own).mkdir()
        monkeypatch.setenv("MS_OM_PATH", own)
    path = document(spec.Sequential(children={"norm": spec.BatchNorm2d(num_features=3)}))
    result = run("parity", path, "--frameworks", "mindspore", "--stages", "precision")
    assert "NOT AVAILABLE" in result.out
    assert os.environ.get("MS_OM_PATH") == own
    assert {path.name for path in tmp_path.iterdir()} == {path.name, *filter(None, [own])}
