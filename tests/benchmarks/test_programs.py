"""The other programs of `python -m benchmarks`, with small arguments."""

import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import COMMANDS
from maam import data, spec
from maam.fusion import fuse

torch = pytest.importorskip("torch")
pytest.importorskip("mindspore")
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
README = (FOLDER / "README.md").read_text()


def commands_in(text):
    return set(re.findall(r"python -m benchmarks ([a-z-]+)", text))


def test_commands_are_listed_documented_and_apart_from_the_library(run, fails):
    out = run()
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert run("--help") == out
    assert commands_in(README) == set(COMMANDS)
    assert fails("reproduce").startswith("unknown command 'reproduce'; expected one of cost, attention, ")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")]
    for page in pages:
        assert commands_in(page.read_text()) <= set(COMMANDS), page
    table = set(re.findall(r"`([\w/]+(?:\.py|/))`", README[README.index("## Files") :]))
    files = {path.name for path in FOLDER.glob("[!_]*.py")}
    assert table == files | {f"{path.parent.name}/" for path in FOLDER.glob("*/__init__.py")}
    assert [link for link in re.findall(r"\]\(([^)#]+)", README) if not (FOLDER / link).exists()] == []
    files = (ROOT / "maam").rglob("*.py")
    assert [path for path in files if re.search(r"(from|import) benchmarks|\"benchmarks\.", path.read_text())] == []
    for name, (module, _) in COMMANDS.items():
        assert inspect.getdoc(getattr(import_module(module), name.replace("-", "_"))), name


def test_parity_table(run, tmp_path):
    fields = ("stage", "absolute", "relative", "bound", "note", "verdict")
    rows = [
        ("layers", 1e-6, 2e-6, "1e-05", "", "pass"),
        ("layers", 3e-6, 1e-6, "1e-05", "", "pass"),
        ("lattice", 0.0, None, "0", "", "pass"),
        ("trained", 1e-3, None, "3 x 1e-3", "", "pass"),
        ("trained", 2e-3, None, "3 x 2e-3", "", "pass"),
        ("half", None, None, ">= 40 dB", "63 dB", "pass"),
        ("half", None, None, ">= 40 dB", "45 dB", "pass"),
        ("half", None, None, "", "", "NOT AVAILABLE"),
    ]
    found = [dict(zip(fields, row, strict=True)) for row in rows]
    (tmp_path / "r.json").write_text(json.dumps({"title": "digits", "rows": found}))
    assert run("parity-table", "r.json").splitlines() == [
        "| stage | bound | digits: worst abs / rel | verdict |",
        "| --- | --- | --- | --- |",
        "| layers | 1e-05 | 3.0e-06 / 2.0e-06 | pass |",
        "| lattice | 0 | 0 | pass |",
        "| trained | see docs/parity.md | 2.0e-03 | pass |",
        "| half | >= 40 dB | 45 dB | NOT AVAILABLE, pass |",
    ]


def read_json(out, path):
    """Return the findings of a program, whose output is the page next to them."""
    assert out.strip() == path.with_suffix(".md").read_text().strip()
    return json.loads(path.read_text())


class TestGpu:
    """The check of a GPU, on the CPU: the same code."""

    OPTIONS = ("--device", "cpu", "--models", "maam_digits", "--batch-size", "4", "--out", "gpu")

    def test_results(self, call, tmp_path):
        status, out, error = call("gpu", *self.OPTIONS, "--only", "distributed")
        assert (status, error) == (0, "distributed ...\n")
        document = read_json(out, tmp_path / "gpu" / "gpu.json")
        assert document["passed"]
        assert [[row["verdict"] for row in one["rows"]] for one in document["sections"]] == [["pass", "pass"]]
        assert "| DistributedDataParallel | gloo | 0 |" in out

    def test_time_limit(self, tmp_path):
        """Sections without time left are named. In a process of its own, because the limit is a signal."""
        command = [sys.executable, "-m", "benchmarks", "gpu", *self.OPTIONS[:-1], str(tmp_path)]
        command += ["--only", "rates,training", "--minutes", "0.01"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
        document = read_json(done.stdout, tmp_path / "gpu.json")
        assert [section["error"][:7] for section in document["sections"]] == ["stopped", "stopped"]
        assert "**stopped at its time limit; the rest was not run**" in done.stdout

    def test_only_a_failure_or_an_error_fails_a_section(self):
        from benchmarks.gpu import run_section

        def section(verdict):
            yield {"verdict": verdict}
            if verdict == "error":
                raise RuntimeError("CUDA error:\nout of memory")

        found = {name: run_section("rates", section, name, 10) for name in ("pass", "NOT AVAILABLE", "FAIL", "error")}
        assert {name for name in found if found[name].failed} == {"FAIL", "error"}
        last = found["error"]
        assert (last.rows, last.error) == ([{"verdict": "error"}], "RuntimeError: CUDA error: out of memory")

    def test_refusals(self, fails):
        assert fails("gpu", "--device", "tpu").startswith("--device: expected cuda or cpu, got 'tpu'")
        assert fails("gpu", "--device", "cpu", "--models", "nope").startswith("no preset 'nope'")
        assert fails("gpu", "--device", "cpu", "--only", "all").startswith("--only: expected some of rates, parity")

    def test_public_network(self):
        """It has the published number of parameters, and the published operations in the published epochs."""
        from benchmarks.gpu_sections import EPOCH, PUBLIC_EPOCHS, public_network

        node = public_network()
        assert round(node.num_parameters / 1e6, 2) == 1.97
        assert 0.33e15 < 6 * node.macs(node.input_shape) * EPOCH * PUBLIC_EPOCHS < 0.38e15

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # of torch.compile
    def test_all_sections(self, call, tmp_path):
        status, out, _ = call("gpu", *self.OPTIONS, "--minutes", 30)
        document = read_json(out, tmp_path / "gpu" / "gpu.json")
        assert [(one["name"], one["error"]) for one in document["sections"] if one["error"]] == []
        assert status == 0
        assert out.count("\n## ") == 6


class TestShare:
    def test_shares_and_aims(self):
        from benchmarks import share

        unit, images = 2 * 1024**3, 4
        times = {share.PRODUCT: [1.0, 2.0, 1.0], share.EAGER: [2.0, 4.0, 2.0], share.OPTIMIZED: [1.0, 2.0, 1.0]}
        found = share._speeds("ResNet-20", images, unit // images // 2, times, share.EAGER, {share.OPTIMIZED: "x"})
        assert [(one.engine, one.share, one.relative, one.images) for one in found] == [
            (share.EAGER, 0.25, 1.0, 2.0),
            (share.OPTIMIZED, 0.5, 2.0, 4.0),
        ]
        assert "| optimize, auto | 4.0 | 0.50 | 2.00 | 0.9: missed | x |" in share.speed_table(found, "eager")
        depthwise = share._speeds("mafc_v2", images, 1, times, share.EAGER, {})
        assert "| 2: reached |" in share.speed_table(depthwise, "eager")
        assert share.batches(share.find_network("maam_imagenet")) == (1, 8)
        depthwise = [name for name in share.CASES if share.is_depthwise(share.find_network(name))]
        assert depthwise == ["maam_imagenet", "mafc_v2", "MobileNetV2"]

    @pytest.mark.slow
    def test_command(self, run, tmp_path):
        out = run("share", "--networks", "maam_digits", "--rounds", 1, "--out", "share")
        document = read_json(out, tmp_path / "share" / "share.json")
        assert len(document["training"]) == 4
        assert len(document["inference"]) + len(document["not measured"]) == 18


class TestLayerTimes:
    @pytest.mark.parametrize("network", ["maam_digits", "maam_net_s"])
    def test_all_operations_are_counted(self, network):
        pytest.importorskip("openvino")
        from benchmarks.layer_times import find_network, measure_layers

        node = find_network(network)
        layers = measure_layers(network, batch=2, rounds=1)
        macs = fuse(node, spec.draw(node.parameters(), 0))[0].macs(node.input_shape)
        assert sum(layer.operations for layer in layers) == 2 * 2 * macs
        assert all(layer.seconds >= 0 for layer in layers)

    def test_command(self, run):
        pytest.importorskip("openvino")
        out = run("layer-times", "maam_digits", "--batch", 2, "--rounds", 1)
        last = next(line for line in out.splitlines() if line.startswith("| all |"))
        assert [cell.strip() for cell in last.split("|")][3:5] == ["1.000", "1.000"]
        assert "| 3x3 convolution, 1 to " in out


@pytest.mark.slow
class TestSlow:
    """Programs that compile models."""

    @pytest.mark.filterwarnings("ignore:The .grad attribute")  # in torch.compile
    @pytest.mark.parametrize("command", ["training-step", "weighted-sum-in-training"])
    def test_training_steps(self, run, command):
        lines = run(command, "maam_digits", "--batch-size", 4, "--rounds", 1).splitlines()
        assert sum(" ms |" in line for line in lines) == 5
        assert set(json.loads(lines[-1])) >= {"torch", "mindspore"}

    def test_ways_to_sum_agree(self):
        from mindspore import Tensor

        from benchmarks import weighted_sum as ways

        rng = np.random.default_rng(0)
        alpha, maps = rng.standard_normal(3, np.float32), rng.standard_normal((3, 2, 4, 5, 5), np.float32)
        expected = np.tensordot(np.exp(alpha) / np.exp(alpha).sum(), maps, 1)
        given = torch.from_numpy(alpha), list(torch.from_numpy(maps))
        found = [way(*given) for way in (ways.torch_chain, ways.torch_addcmul, ways.torch_stack)]
        given = [Tensor(alpha), *map(Tensor, maps)]
        found += [way(*given).asnumpy() for way in (ways.mindspore_chain, ways.mindspore_stack)]
        for result in found:
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)

    def test_fused_form_of_a_preset(self):
        from benchmarks.fusion import compare_forms

        name, different, *relative = compare_forms("maam_cifar10_2m3", np.zeros((2, 3, 32, 32), np.float32))
        assert (name, different) == ("`maam_cifar10_2m3`", "0, 0, 0")
        assert all(float(value) < 1e-5 for value in relative)

    def test_maf_outputs(self):
        from benchmarks.maf_outputs import compute_outputs
        from tests.test_published import read, share

        document = read(ROOT / "tests" / "published" / "v3_small.json")
        shares = [share(output, document, training=False) for output in compute_outputs(document, training=False)]
        assert len(shares) == 4
        assert max(shares[:2]) < 1e-12 < max(shares[2:]) < 1e-5

    def test_rounding_of_sums_and_errors_of_mindspore(self):
        from benchmarks.rounding import adam_first_update, sum_errors, tanh_error

        errors = sum_errors((4, 8, 8, 8), seed=0)
        assert set(errors) == {"eager", "compiled", "mindspore"}
        assert all(0 < error < 1e-6 for error in errors.values())
        assert 1e-5 < tanh_error()[0] < 1e-3
        assert adam_first_update(1e-4) == pytest.approx(1, abs=0.02)
        assert adam_first_update(1e-8) < 0.1

    def test_gradients_at_kinks(self):
        from benchmarks.rounding import gradient_errors
        from maam.backend.registry import make_double
        from maam.parity.subject import Subject

        node = spec.preset("maam_digits")
        arrays, images = spec.draw(node.parameters(), 0), data.digits("test")
        labels, double = images.labels.astype(np.int32), make_double(node, arrays)
        errors = list(gradient_errors(Subject(node, arrays, data.to_float(images.images), labels, [], double=double)))
        assert len(errors) == 10
        assert all(after <= before and after < 1e-4 for before, after, _ in errors)
