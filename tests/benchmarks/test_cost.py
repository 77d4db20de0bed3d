"""The cost of layers and models: cases, measurement, tables, pictures and the command."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.cost import LAYERS, MODELS, Result, measure, measure_growth, report
from benchmarks.cost.cases import make_case, starts_with
from benchmarks.cost.measure import GROWTH, peak_memory
from benchmarks.cost.report import BASE_KIND
from maam import MaamError, SpecError, spec

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.cost import baselines  # noqa: E402
from maam.torch import build  # noqa: E402

MEASURE = importlib.import_module("benchmarks.cost.measure")  # the package has a function of the same name
SMALL = {"batch": 2, "channels": 4, "size": 4, "rounds": 1}
POSITIVE = "expected an integer of at least 1"
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


class TestCases:
    def test_shapes_and_sizes(self):
        assert {make_case(name, 16).output_shape((16, 8, 8)) for name in LAYERS} == {(16, 8, 8)}
        assert {make_case(name, 3).output_shape((3, 32, 32)) for name in MODELS} == {(10,)}
        node = make_case("ResNet-20", 3)
        weights = [p for p in node.parameters() if p.role is spec.Role.WEIGHT]
        assert sum(len(p.shape) == 4 and p.shape[2] == 3 for p in weights) == 19
        shortcuts = 2_752  # two 1x1 convolutions with batch norm, where the paper pads
        assert node.num_parameters == 269_722 + shortcuts

    def test_shufflenet_equals_torchvision(self):
        models = pytest.importorskip("torchvision.models")
        theirs = models.shufflenet_v2_x1_0(num_classes=10).eval()
        theirs.conv1[0].stride, theirs.maxpool = (1, 1), torch.nn.Identity()
        ours = build(make_case("ShuffleNetV2", 3), seed=0).eval()
        ours.load_state_dict(theirs.state_dict())
        x = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(ours(x), theirs(x))

    def test_baselines_keep_their_shape(self):
        pytest.importorskip("timm")
        for name in baselines.LAYERS:
            x = torch.rand(2, 16, 8, 8)
            assert baselines.make_baseline(name, 16).eval()(x).shape == x.shape, name

    def test_agent_attention_equals_its_definition(self):
        """Compare with explicit matrices: 3x3 positions, at most 7x7 agents, so each position is an agent."""
        layer = baselines.make_baseline("agent attention", 4).eval()
        layer.heads = 1
        x = torch.rand(1, 4, 3, 3)
        q, k, v = layer.qkv(x[0].flatten(1).T).split(4, dim=1)
        y = layer.proj(torch.softmax(q @ q.T / 2, 1) @ torch.softmax(q @ k.T / 2, 1) @ v)
        local = layer.dwc(v.T.reshape(1, 4, 3, 3))
        torch.testing.assert_close(layer(x), x + y.T.reshape(x.shape) + local, rtol=1e-5, atol=1e-6)


def measure_torch(kinds, **options):
    return measure("layers", frameworks=["torch"], kinds=kinds, **{"cases": ["SE"], **SMALL, **options})


class TestMeasurement:
    def test_torch(self):
        names = ["inference fp32", "training step fp32"]
        found = measure_torch(names, cases=["MAAM", "SE"], channels=8, rounds=2)
        expected = {(case, f"torch {kind}") for case in ("MAAM", "SE") for kind in names}
        assert {key for key in found.times if key[0] != "matrix product"} == expected
        assert ("matrix product", "fp32") in found.times
        assert all(len(values) == 2 and min(values) > 0 for values in found.times.values())
        assert found.facts["MAAM"]["parameters"] == spec.maam(8).num_parameters
        assert found.facts["MAAM"]["macs"] == spec.maam(8).macs((8, 4, 4))
        assert found.facts["MAAM"]["saved"] > found.facts["SE"]["saved"] > 0
        json.dumps(found.to_document())

    def test_mindspore(self):
        pytest.importorskip("mindspore")
        lines = []
        found = measure("layers", cases=["SE"], frameworks=["mindspore"], progress=lines.append, **SMALL)
        assert lines[0] == "preparing 1 of 1: mindspore, SE"
        assert re.fullmatch(r"about 0:00:\d\d of CPU time for \d rounds", lines[1])
        names = ("inference fp32", "inference, fused", "training step fp32")
        assert set(found.times) == {("SE", f"mindspore {name}") for name in names}

    def test_failures_and_missing_engines_do_not_stop_the_others(self, monkeypatch):
        found = measure_torch(["training"], batch=1)
        assert found.facts == {}
        reason = "a training step needs at least 2 images, because batch norm computes a variance"
        assert found.left_out == {f"SE, torch training step {name}": reason for name in ("fp32", "bf16")}
        text = f"Not measured ({reason}): SE, torch training step fp32; SE, torch training step bf16."
        assert report.left_out(found) == [text]
        for package in ("nncf", "openvino", "onnxscript"):
            monkeypatch.setitem(sys.modules, package, None)
        found = measure_torch(["inference fp32", "inference int8"])
        assert ("SE", "torch inference fp32") in found.times
        assert list(found.left_out) == ["SE, torch inference int8"]

    @pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
    @pytest.mark.parametrize("framework", ["torch", pytest.param("mindspore", marks=pytest.mark.slow)])
    def test_peak_memory(self, framework):
        """Input and output are maps of 16 MiB each; thirty of them are too many."""
        pytest.importorskip(framework)
        found = peak_memory(framework, "SE", "inference fp32", (4, 64, 128, 128))
        assert 2 * 2**24 <= found <= 30 * 2**24

    def test_memory_is_measured_for_each_case(self, monkeypatch):
        calls = []
        monkeypatch.setattr(MEASURE, "peak_memory", lambda *given: calls.append(given) or 3 * 2**20)
        found = measure_torch(["inference fp32"], memory=True)
        assert calls == [("torch", "SE", "inference fp32", (2, 4, 4, 4))]
        assert all(part in report.memory_table(found) for part in ("| SE | 3 |", "batch 2"))
        json.dumps(found.to_document())

    @pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
    def test_errors_of_the_memory(self, monkeypatch):
        with pytest.raises(MaamError, match=r"^SE, torch inference fp32: Unable to allocate"):
            peak_memory("torch", "SE", "inference fp32", (10**6, 4, 4096, 4096))
        monkeypatch.setattr(MEASURE.sys, "platform", "darwin")
        with pytest.raises(MaamError, match=r"^peak memory is read from /proc, which darwin does not have$"):
            peak_memory("torch", "SE", "inference fp32", (1, 4, 4, 4))

    def test_growth(self, monkeypatch):
        """Doubling the time with each step of four in the batch is a slope of one half."""
        monkeypatch.setattr(MEASURE, "_load_functions", lambda name: SimpleNamespace(make_function=lambda *given: None))
        times = [[2.0**step] for values in GROWTH.values() for step in range(len(values))]
        monkeypatch.setattr(MEASURE, "_interleave", lambda functions, rounds, progress: times[: len(functions)])
        seconds, slope = measure_growth("torch")["batch"]
        assert (seconds, slope) == ([1, 2, 4, 8], pytest.approx(0.5))

    def test_refusals(self):
        refused = [
            *(({name: count}, f"^{name}: {POSITIVE}, got {count}") for name in SMALL for count in (0, -1, 2.5, True)),
            ({"cases": ["NOPE"]}, "^cases: no case 'NOPE'; expected some of conv stage, MAAM, "),
            ({"group": "layer"}, "group: expected "),
            ({"frameworks": ["pytorch"]}, "frameworks: expected "),
        ]
        for arguments, message in refused:
            with pytest.raises(SpecError, match=message):
                measure(**{"group": "layers", "frameworks": ["torch"], **arguments})


class TestReport:
    def test_tables(self):
        text = report.times_table(RESULT)
        assert "MAAM, torch inference fp32 = 1 (3.00 ms)" in text
        assert "| MAAM | 1,000 | 3,000,000 | 1.00 | 2.0 | 1.00 |  |" in text
        assert "| SE | 10 | 1,000,000 | 0.00 | 0.0 | 0.33 | 0.17 |" in text
        limits = report.limits_table(RESULT)
        assert "fp32 21, bf16 43" in limits
        assert "| SE | torch inference int8 | 8.0 | 0.37 | 0.19 |" in limits
        assert report.limits_table(Result(1)) == report.times_table(Result(1)) == report.memory_table(Result(1)) == ""
        memory_bound = {**RESULT.facts, "SE": {**RESULT.facts["SE"], "macs": 10_000}}
        assert "| SE |" not in report.limits_table(replace(RESULT, facts=memory_bound))

        times = RESULT.times | {("matrix product", "bf16"): [0.2] * 3}  # the rate of float32 is now the best
        assert report.limits_table(replace(RESULT, times=times)).count("share of the fp32 rate") == 1
        text = report.growth_table({"batch": ([0.1, 0.2, 0.4, 0.8], 0.5)})
        assert "| batch | 1: 1.00, 4: 2.00, 16: 4.00, 64: 8.00 | 0.50 |" in text

    def test_pareto_front(self, tmp_path):
        points = {"a": (1.0, 5.0), "b": (2.0, 6.0), "c": (3.0, 1.0), "d": (1.0, 9.0)}
        assert report.pareto_front(points) == ["a", "c"]
        report.draw_pareto(RESULT, tmp_path / "accuracy.png", BASE_KIND, {"MAAM": 0.9, "SE": 0.8})
        assert (tmp_path / "accuracy.png").stat().st_size > 1000

    def test_labels_cover_neither_labels_nor_points(self):
        axis = Figure().subplots()
        points = {f"a long name {index}": (10 + 0.1 * index, 1e6 + 1e3 * (index % 2)) for index in range(4)}
        for point in points.values():
            axis.plot(*point, "o", label="point")
        axis.legend()
        report.label_points(axis, points)
        boxes = [text.get_window_extent() for text in axis.texts]
        assert len(boxes) == 4
        assert all(box.count_overlaps(boxes) == 1 for box in boxes)
        assert not any(box.contains(*axis.transData.transform(point)) for box in boxes for point in points.values())


class TestCommand:
    def test_layers(self, run, tmp_path):
        options = ("--frameworks", "torch", "--cases", "MAAM,SE", "--kinds", "inference fp32", "--batch", "1,2")
        out = run("cost", "layers", *options, "--channels", 8, "--size", 4, "--rounds", 1, "--out", "out")
        assert "CPU time, batch 1; MAAM, torch inference fp32 = 1" in out
        assert "Matrix products" in out
        written = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert written == ["layers.json", "layers.md", "layers_batch_1.png", "layers_batch_2.png"]
        document = json.loads((tmp_path / "out" / "layers.json").read_text())
        assert set(document) == {"environment", "batch 1", "batch 2"}

    def test_growth(self, run, monkeypatch, tmp_path):
        growth = {axis: ([1.0, 2.0, 4.0, 8.0], 1.0) for axis in GROWTH}
        monkeypatch.setattr("benchmarks.cost.command.measure_growth", lambda name, rounds, progress: growth)
        assert "mindspore, inference, float32" in run("cost", "growth", "--out", "out")
        written = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert written == ["growth.json", "growth.md", "growth_mindspore.png", "growth_torch.png"]

    def test_commas_of_a_kind_are_omitted(self, run, monkeypatch):
        kinds = []
        command = "benchmarks.cost.command.measure"
        monkeypatch.setattr(command, lambda *given, **options: kinds.append(options["kinds"]) or RESULT)
        run("cost", "layers", "--batch", "1", "--kinds", "inference optimized,training")
        assert kinds == [["inference optimized", "training"]]
        assert starts_with("inference, optimized", kinds[0][0])
        assert not starts_with("inference fp32", kinds[0][0])

    def test_matplotlib_is_checked_before_the_measurement(self, fails, monkeypatch):
        found = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: found(name) if name != "matplotlib" else None)
        monkeypatch.setattr("benchmarks.cost.command.measure", lambda *given, **options: pytest.fail("measured"))
        assert fails("cost", "layers", "--out", "out") == "matplotlib is not installed; run: pip install 'maam[train]'"

    def test_refusals(self, fails, tmp_path):
        (tmp_path / "a.json").write_text("[1]")
        for arguments, message in {
            "all": "expected one of layers, models, growth, got 'all'",
            "layers --batch x": "--batch: expected comma-separated integers of at least 1, got 'x'",
            "layers --batch \u00b2": "--batch: expected comma-separated integers of at least 1",
            "layers --frameworks jax": "--frameworks: expected some of mindspore, torch, got 'jax'",
            "growth --batch 3": "--batch: growth measures fixed settings of one layer; remove",
            "models --size 9": "--size: the models take images of 32x32; remove this option",
            "models --kinds ,": "--kinds: expected at least one name",
            "models --cases ,": "--cases: expected at least one name",
            "models --frameworks ,": "--frameworks: expected at least one name",
            "models --accuracies a.json": "--accuracies: only the picture uses it; add --out",
            "models --accuracies a.json --out out": "--accuracies a.json: expected JSON such as",
            "layers --frameworks torch --cases NOPE": "cases: no case 'NOPE'",
            "models --frameworks torch --kinds inference,foo": "kinds: no kind starts with 'foo'",
        }.items():
            assert fails("cost", *arguments.split()).startswith(message), arguments
