"""`python -m benchmarks networks`: accuracy beside latency."""

import json

import pytest

from tests.benchmarks.test_variants import rows

pytest.importorskip("matplotlib")
EAGER, FAST, OTHER = "PyTorch, eager", "optimize, auto", "int8, OpenVINO"
SPEEDS = [("ResNet-20", EAGER, 200.0), ("ResNet-20", FAST, 800.0), ("maam_digits", EAGER, 400.0), ("cnn", OTHER, 1.0)]


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def test_accuracy_beside_time(run, fails, tmp_path):
    """Of the runs with the most epochs, the mean counts; networks without a run keep their times."""
    trained = [("a", 10, 0.5, {}), ("b", 20, 0.6, {}), ("c", 20, 0.62, {}), ("d", 30, 0.9, {"fusion": "mean"})]
    for name, epochs, accuracy, overrides in trained:
        recipe = {"model": "maam_digits", "epochs": epochs, "data": "cifar10", "overrides": overrides}
        write(tmp_path / "published" / name / "run.json", {"sessions": [{"recipe": recipe}]})
        write(tmp_path / "published" / name / "results.json", {"accuracy": accuracy})
    measured = [{"network": name, "engine": engine, "batch": 1, "images": speed} for name, engine, speed in SPEEDS]
    write(tmp_path / "share.json", {"inference": measured, "environment": {}})
    found = rows(run("networks", "share.json", "--runs", "published"))
    assert found[2][:5] == ["ResNet-20", "92.60", "200", "1", "github.com/chenyaofo/pytorch-cifar-models"]
    assert found[2][7:] == ["1.00", "0.25", ""]
    assert found[3] == ["maam_digits", "61.00", "20", "2", "here", "49,117", "962,176", "0.50", "", ""]
    assert len(found) == 4
    assert (tmp_path / "runs" / "networks.png").read_bytes().startswith(b"\x89PNG")

    write(tmp_path / "share.json", {"inference": measured[2:]})
    assert "expected the speed of ResNet-20 in every batch" in fails("networks", "share.json")
    for text in ("{", "[]", "{}"):
        (tmp_path / "share.json").write_text(text)
        assert fails("networks", "share.json").startswith("share.json: expected the share.json that")
