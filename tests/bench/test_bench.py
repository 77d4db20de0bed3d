"""Cases, measuring, and what the report makes of it."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.cost import LAYERS, MODELS, Result, measure
from benchmarks.cost.cases import make_case
from benchmarks.cost.measure import peak_memory
from benchmarks.cost.report import (
    BASE_KIND,
    _label,
    draw_growth,
    draw_pareto,
    growth_table,
    left_out,
    limits_table,
    memory_table,
    pareto_front,
    times_table,
)
from maam import MaamError, SpecError, spec

RESULT = Result(
    batch=2,
    times={
        ("MAAM", BASE_KIND): [0.002, 0.004, 0.003],
        ("SE", BASE_KIND): [0.001, 0.001, 0.001],
        ("SE", "torch inference int8"): [0.0005] * 3,
        ("matrix product", "fp32"): [0.1] * 3,
        ("matrix product", "bf16"): [0.05] * 3,
    },
    facts={
        "MAAM": {"parameters": 1000, "macs": 3_000_000, "bytes": 2**20, "saved": 2**21},
        "SE": {"parameters": 10, "macs": 1_000_000, "bytes": 2**10, "saved": 2**10},
    },
)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_their_shape(name):
    assert make_case(name, 16).output_shape((16, 8, 8)) == (16, 8, 8)


@pytest.mark.parametrize("name", MODELS)
def test_models_have_ten_classes(name):
    assert make_case(name, 3).output_shape((3, 32, 32)) == (10,)


def test_resnet20_is_the_published_one():
    node = make_case("ResNet-20", 3)
    weights = [p for p in node.parameters() if p.role is spec.Role.WEIGHT]
    assert sum(len(p.shape) == 4 and p.shape[2] == 3 for p in weights) == 19
    assert (
        node.num_parameters == 269_722 + 2_752
    )  # two shortcuts by 1x1 convolutions with batch norm, where the paper pads


def test_measuring(monkeypatch):
    pytest.importorskip("torch")
    found = measure(
        "layers",
        cases=["MAAM", "SE"],
        frameworks=["torch"],
        kinds=["inference fp32", "training step fp32"],
        batch=2,
        channels=8,
        size=4,
        rounds=2,
    )
    kinds = {"torch inference fp32", "torch training step fp32"}
    assert set(found.times) == {(case, kind) for case in ("MAAM", "SE") for kind in kinds} | {
        key for key in found.times if key[0] == "matrix product"
    }
    assert ("matrix product", "fp32") in found.times
    assert all(len(values) == 2 and min(values) > 0 for values in found.times.values())
    assert found.facts["MAAM"]["parameters"] == spec.maam(8).num_parameters
    assert found.facts["MAAM"]["macs"] == spec.maam(8).macs((8, 4, 4))
    assert found.facts["MAAM"]["saved"] > found.facts["SE"]["saved"] > 0
    json.dumps(found.to_document())


def test_mindspore_is_measured(tmp_path, monkeypatch):
    pytest.importorskip("mindspore")
    monkeypatch.chdir(tmp_path)
    found = measure("layers", cases=["SE"], frameworks=["mindspore"], batch=2, channels=4, size=4, rounds=1)
    names = ("inference fp32", "inference, fused", "training step fp32")
    assert set(found.times) == {("SE", f"mindspore {name}") for name in names}


def test_what_cannot_be_measured_is_said():
    pytest.importorskip("torch")
    found = measure("layers", cases=["SE"], frameworks=["torch"], kinds=["training"], batch=1, channels=4, size=4)
    assert found.facts == {}
    reason = "a training step needs at least 2 images: batch norm has no variance of one value"
    assert found.left_out == {f"SE, torch training step {name}": reason for name in ("fp32", "bf16")}
    said = f"Not measured ({reason}): SE, torch training step fp32; SE, torch training step bf16."
    assert left_out(found) == [said]


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_peak_memory(framework):
    """A map of 16 MiB goes in and one comes out; thirty of them need not."""
    pytest.importorskip(framework)
    found = peak_memory(framework, "SE", "inference fp32", (4, 64, 128, 128))
    assert 2 * 2**24 <= found <= 30 * 2**24


def test_memory_is_measured_by_case(monkeypatch):
    pytest.importorskip("torch")
    asked = []
    module = importlib.import_module("benchmarks.cost.measure")  # the package has a function of this name
    monkeypatch.setattr(module, "peak_memory", lambda *given: asked.append(given) or 3 * 2**20)
    options = {"batch": 2, "channels": 4, "size": 4, "rounds": 1, "memory": True}
    found = measure("layers", cases=["SE"], frameworks=["torch"], kinds=["inference fp32"], **options)
    assert asked == [("torch", "SE", "inference fp32", (2, 4, 4, 4))]
    assert "| SE | 3 |" in memory_table(found)
    assert "batch 2" in memory_table(found)
    json.dumps(found.to_document())


def test_memory_needs_linux(monkeypatch):
    monkeypatch.setattr("benchmarks.cost.measure.sys.platform", "darwin")
    with pytest.raises(MaamError, match=r"^peak memory is read from /proc, which darwin does not have$"):
        peak_memory("torch", "SE", "inference fp32", (1, 4, 4, 4))


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_too_little_memory_is_said():
    pytest.importorskip("torch")
    with pytest.raises(MaamError, match=r"^SE, torch inference fp32: Unable to allocate"):
        peak_memory("torch", "SE", "inference fp32", (10**6, 4, 4096, 4096))


def test_a_missing_engine_leaves_the_others(monkeypatch):
    pytest.importorskip("torch")
    for package in ("nncf", "openvino", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    options = {"batch": 2, "channels": 4, "size": 4, "rounds": 1}
    found = measure("layers", cases=["SE"], frameworks=["torch"], kinds=["inference fp32", "inference int8"], **options)
    assert ("SE", "torch inference fp32") in found.times
    assert list(found.left_out) == ["SE, torch inference int8"]


@pytest.mark.parametrize("name", ["batch", "channels", "size", "rounds"])
@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_counts(name, count):
    with pytest.raises(SpecError, match=f"^{name}: expected an integer of at least 1, got {count}"):
        measure("layers", **{name: count})


def test_unknown_cases():
    pytest.importorskip("torch")
    with pytest.raises(SpecError, match=r"^cases: no case 'NOPE'; there are conv stage, MAAM, "):
        measure("layers", cases=["NOPE"], frameworks=["torch"])


class TestRivals:
    @pytest.fixture
    def baselines(self):
        pytest.importorskip("timm")
        pytest.importorskip("torchvision")
        from benchmarks.cost import baselines

        return baselines

    def test_layers_keep_their_shape(self, baselines):
        import torch

        for name in baselines.LAYERS:
            x = torch.rand(2, 16, 8, 8)
            assert baselines.make_rival(name, 16).eval()(x).shape == x.shape, name
        assert baselines.make_rival("ShuffleNetV2", 3).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)

    def test_agent_attention_is_its_definition(self, baselines):
        """With as many agents as positions and none pooled away, by matrices written out."""
        import torch

        layer = baselines.make_rival("agent attention", 4).eval()
        layer.heads = 1
        x = torch.rand(1, 4, 3, 3)
        tokens = x[0].flatten(1).T
        q, k, v = layer.qkv(tokens).split(4, dim=1)
        a = q  # 3x3 positions, at most 7x7 agents: each position is one
        inner = torch.softmax(a @ k.T / 2, 1) @ v
        y = layer.proj(torch.softmax(q @ a.T / 2, 1) @ inner)
        local = layer.dwc(v.T.reshape(1, 4, 3, 3))
        torch.testing.assert_close(layer(x), x + y.T.reshape(x.shape) + local, rtol=1e-5, atol=1e-6)


def test_tables():
    text = times_table(RESULT)
    assert "MAAM, torch inference fp32 = 1 (3.00 ms)" in text
    assert "| MAAM | 1,000 | 3,000,000 | 1.00 | 2.0 | 1.00 |  |" in text
    assert "| SE | 10 | 1,000,000 | 0.00 | 0.0 | 0.33 | 0.17 |" in text
    limits = limits_table(RESULT)
    assert "fp32 21, bf16 43" in limits
    assert "| SE | torch inference int8 | 8.0 | 0.37 | 0.19 |" in limits
    assert limits_table(Result(1)) == times_table(Result(1)) == ""
    memory_bound = {**RESULT.facts, "SE": {**RESULT.facts["SE"], "macs": 10_000}}
    assert "| SE |" not in limits_table(replace(RESULT, facts=memory_bound))


def test_the_fastest_precision_may_be_float32():
    times = RESULT.times | {("matrix product", "bf16"): [0.2] * 3}
    assert limits_table(replace(RESULT, times=times)).count("share of the fp32 rate") == 1


def test_growth():
    text = growth_table({"batch": ([0.1, 0.2, 0.4, 0.8], 0.5)})
    assert "| batch | 1: 1.00, 4: 2.00, 16: 4.00, 64: 8.00 | 0.50 |" in text


def test_pareto():
    points = {"a": (1.0, 5.0), "b": (2.0, 6.0), "c": (3.0, 1.0), "d": (1.0, 9.0)}
    assert pareto_front(points) == ["a", "c"]


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    draw_pareto(RESULT, tmp_path / "plain.png", BASE_KIND, {})
    draw_pareto(RESULT, tmp_path / "accuracy.png", BASE_KIND, {"MAAM": 0.9, "SE": 0.8})
    draw_growth({axis: (list(np.arange(1, 5) / 100), 1.0) for axis in ("branches", "batch")}, tmp_path / "growth.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("plain.png", "accuracy.png", "growth.png"))


def test_names_cover_neither_names_nor_points():
    axis = Figure().subplots()
    points = {f"a long name {index}": (10 + 0.1 * index, 1e6 + 1e3 * (index % 2)) for index in range(4)}
    for point in points.values():
        axis.plot(*point, "o", label="point")
    axis.legend()
    _label(axis, points)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 4
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
    assert not any(box.contains(*axis.transData.transform(point)) for box in boxes for point in points.values())
