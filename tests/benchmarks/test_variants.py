"""`python -m benchmarks attention`, `parts`, `halves` and `networks`: what they train, keep, refuse and write."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cost.cases import find_network
from benchmarks.halves import HALVES
from benchmarks.variants import CONTROL, PARTS, WIDTHS
from maam.data import cifar, cifar10, imagefolder
from maam.spec import preset
from maam.training.run_dir import RunFolder
from tests.data.conftest import RECORDS, write_data

pytest.importorskip("matplotlib")
EAGER, FAST, OTHER = "PyTorch, eager", "optimize, auto", "int8, OpenVINO"
SPEEDS = [("ResNet-20", EAGER, 200.0), ("ResNet-20", FAST, 800.0), ("maam_digits", EAGER, 400.0), ("cnn", OTHER, 1.0)]
NETWORKS = {name: find_network(name) for name, _, _ in SPEEDS}
SHARES = [(n, engine, speed * NETWORKS[n].macs(NETWORKS[n].input_shape)) for n, engine, speed in SPEEDS]
TINY = ("attention", "--modules", "none,eca", "--epochs", 1, "-o", "batch_size=30", "-o", "overrides.channels=[6, 6]")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with 60 images in place of CIFAR-10; times are not measured."""
    pytest.importorskip("torch")
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", replace(cifar.LAYOUTS["cifar10"], records=RECORDS))
    monkeypatch.setattr("benchmarks.variants.interleave", lambda functions: {name: [1.0] for name in functions})
    write_data("binary", "cifar10", tmp_path / "sets")
    return tmp_path / "sets"


def rows(text):
    """Return the cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_runs_are_kept_and_trained_once(run, fails, root, tmp_path, monkeypatch):
    command, file = (*TINY, "--seeds", "0", "--root", root), tmp_path / "runs" / "attention.json"
    found = rows(run(*command))
    kept = json.loads(file.read_text())
    assert kept["recipe"]["overrides"] == {"channels": [6, 6]}
    assert [name for name, *_ in found] == list(kept["accuracies"]) == ["none", "eca"]
    for name, accuracy, *_ in found:
        assert kept["accuracies"][name] == {"0": pytest.approx(float(accuracy))}
        assert RunFolder(tmp_path / "runs" / "attention" / f"{name}-seed0").log.records()[-1]["step"] == 2

    monkeypatch.setattr("benchmarks.variants.train", lambda **_: pytest.fail("trained again"))
    assert rows(run(*command)) == found
    message = fails(*command, "-o", "optimizer.lr=0.1")
    assert message == "runs/attention.json: optimizer.lr is 0.75 in the file and 0.1 now; choose another --out"
    kept["accuracies"] = {"none": {"0": 50, "1": 52}, "eca": {"0": 54, "1": 54.5}, "se": {"0": 51.5, "1": 52}}
    file.write_text(json.dumps(kept))
    out = run(*TINY, "--collect", "--modules", "none,eca,se,gct", "--seeds", "0,1")
    # Two-sided Dunnett, two comparisons, 3 degrees of freedom: t = 3.25 / 0.866 and 0.75 / 0.866.
    low, high = (pytest.approx(p, abs=0.01) for p in (0.054, 0.647))
    assert [[*row[1:4], row[4] and float(row[4])] for row in rows(out)] == [
        ["51.00", "1.41", "", ""],
        ["54.25", "0.35", "+3.25", low],
        ["51.75", "0.35", "+0.75", high],
        ["not run", "", "", ""],
    ]
    assert (tmp_path / "runs" / "attention.md").read_text().strip() == out.strip()
    assert (tmp_path / "runs" / "attention.png").read_bytes().startswith(b"\x89PNG")
    out = run(*TINY, "--collect", "--modules", "none,eca", "--seeds", "0,1,2")
    assert [row[1] for row in rows(out)] == ["51.00 (2 of 3 seeds)", "54.25 (2 of 3 seeds)"]


def test_parts_have_about_the_same_cost(run, root, monkeypatch):
    models = {name: preset("maam_net_s", **{"channels": WIDTHS, **options}) for name, options in PARTS.items()}
    macs = {name: model.macs((3, 32, 32)) for name, model in models.items()}
    assert max(macs.values()) < 1.02 * min(macs.values())
    names = (CONTROL, "3 branches, mean")
    monkeypatch.setattr("benchmarks.variants.PARTS", {name: PARTS[name] for name in names})
    found = rows(run("parts", "--epochs", 1, "-o", "batch_size=30", "--seeds", "0", "--root", root))
    assert [(row[0], row[6]) for row in found] == [(name, f"{macs[name]:,}") for name in names]
    assert [row[3][:1] for row in found] in (["", "+"], ["", "-"])
    assert RunFolder("runs/parts/3_branches-mean-seed0").recipe().overrides["fusion"] == "mean"


def test_halves_of_cifar10(run, fails, root):
    run("halves", root, "halves", "--images", 2)
    first, second = (imagefolder(f"halves/{half}", "train") for half in HALVES)
    assert (first.class_names, second.class_names) == tuple(HALVES.values())
    whole = cifar10(root, "train")
    assert len(first) == sum(whole.class_names[label] in HALVES["first"] for label in whole.labels)
    assert np.bincount(second.labels).tolist() == [2] * 5
    assert fails("halves", root, "halves") == "halves: exists already; choose a new folder"


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def test_accuracy_versus_time(run, fails, tmp_path):
    """Of the runs with the most epochs, the mean counts; networks without a run keep their times."""
    trained = [("a", 10, 0.5, {}), ("b", 20, 0.6, {}), ("c", 20, 0.62, {}), ("d", 30, 0.9, {"fusion": "mean"})]
    for name, epochs, accuracy, overrides in trained:
        recipe = {"model": "maam_digits", "epochs": epochs, "data": "cifar10", "overrides": overrides}
        write(tmp_path / "published" / name / "run.json", {"sessions": [{"recipe": recipe}]})
        write(tmp_path / "published" / name / "results.json", {"accuracy": accuracy})
    measured = [{"network": name, "engine": engine, "batch": 1, "share": share} for name, engine, share in SHARES]
    write(tmp_path / "share.json", {"inference": measured[:2], "environment": {}})
    write(tmp_path / "other.json", {"inference": measured[2:], "environment": {}})
    found = rows(run("networks", "share.json", "other.json", "--runs", "published"))
    assert found[0][:5] == ["ResNet-20", "92.60", "200", "1", "github.com/chenyaofo/pytorch-cifar-models"]
    assert found[0][7:] == ["1.00", "0.25", ""]
    assert found[1:] == [["maam_digits", "61.00", "20", "2", "here", "49,117", "962,176", "0.50", "", ""]]
    assert (tmp_path / "runs" / "networks.png").read_bytes().startswith(b"\x89PNG")

    write(tmp_path / "share.json", {"inference": measured[2:]})
    assert "expected the speed of ResNet-20 in PyTorch, eager, got none for batch 1" in fails("networks", "share.json")
    for text in ("{", "[]", "{}"):
        (tmp_path / "share.json").write_text(text)
        assert fails("networks", "share.json").startswith("share.json: expected the share.json that")
