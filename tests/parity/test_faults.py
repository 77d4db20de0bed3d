"""Parity finds planted faults in either framework, at a first, a middle and a last layer, and names the layer."""

import pytest

from maam import spec
from maam.parity import check, make_runners
from maam.parity.stages import steps as steps_stage
from tests.parity import faults
from tests.parity.models import EAGER, scrambled

pytest.importorskip("torch")  # the gradient reference

NORMS = ("agents.0.bn1", "agents.1.bn2", "reduce.bn")
CONVS = ("agents.0.conv1", "agents.1.conv1", "agents.2.conv2")
WEIGHTS = ("agents.0.conv1.weight", "agents.2.conv2.weight", "classifier.fc2.weight")
STAGE = {"wrong_momentum": "running statistics", "biased_variance": "running statistics", "epsilon": "layers, eval"}
"""The stage that finds each fault of a batch norm."""


def cases(names, paths):
    """Return every fault at every layer in each framework; in MindSpore all but a sample are slow."""
    slow = [pytest.mark.slow]
    return [
        pytest.param(framework, fault, path, marks=slow * (framework == "mindspore" and column != row % len(paths)))
        for framework in EAGER
        for row, fault in enumerate(names)
        for column, path in enumerate(paths)
    ]


def failed_stages(report):
    return {row.stage for row in report.failures}


def test_no_fault_no_failure(runner, small, arrays):
    report = check(small, arrays, runners=[runner], stages=["exchange", "layers", "forward", "gradients"])
    assert report.passed
    assert report.first_difference == ""


@pytest.mark.parametrize(
    ("runner", "fault", "path"), cases(STAGE, NORMS) + cases(["wrong_padding"], CONVS), indirect=["runner"]
)
def test_layers(runner, small, arrays, fault, path):
    getattr(faults, fault)(runner, path)
    report = check(small, arrays, runners=[runner], stages=["layers", "forward"])
    assert report.first_difference == path
    if fault in STAGE:
        assert STAGE[fault] in failed_stages(report)
    else:
        assert {"layers, eval", "layers, train", "logits, eval"} <= failed_stages(report)
        assert {row.layer for row in report.failures if row.stage.startswith("logits")} == {path}


def test_permuted_branches(runner, small, arrays):
    """At equal fusion weights (alpha = 0) the forward pass is the same; the gradient of alpha is not."""
    faults.permuted_branches(runner, "agents")
    report = check(small, arrays, runners=[runner], stages=["layers", "forward"])
    assert report.first_difference == "agents"
    report = check(small, spec.draw(small.parameters(), 0), runners=[runner], stages=["layers", "gradients"])
    assert failed_stages(report) == {"gradients, fresh weights"}
    assert report.first_difference == "agents.alpha"


@pytest.mark.parametrize(
    ("shared_runner", "fault", "path"),
    cases(["NesterovIgnored", "WeightDecaySkipped"], WEIGHTS),
    indirect=["shared_runner"],
    scope="module",
)
def test_optimizer(shared_runner, small, fault, path, monkeypatch):
    monkeypatch.setattr(steps_stage, "OPTIMIZERS", {"sgd": steps_stage.OPTIMIZERS["sgd"]})
    report = check(small, runners=[getattr(faults, fault)(shared_runner, path)], stages=["steps"])
    assert failed_stages(report) == {"ten steps, sgd"}
    assert report.first_difference == path


def test_a_fault_breaks_the_free_run(shared_runner, small):
    faulty = shared_runner
    for path in WEIGHTS:
        faulty = faults.NesterovIgnored(faulty, path)
    report = check(small, runners=[faulty], stages=["free run"], steps=20)
    assert failed_stages(report) == {"free run, 20 steps"}


@pytest.mark.parametrize("fault", ["wrong_momentum", pytest.param("epsilon", marks=pytest.mark.slow)])
def test_in_graph_mode(fault):
    """Graph mode compiles each layer that is compared alone, so the network has two branches only."""
    pytest.importorskip("mindspore")
    node = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8, num_agents=2)
    arrays = scrambled(node)
    graph = make_runners(node, arrays, ["mindspore"])[0][0]
    assert graph.name == "mindspore graph"
    getattr(faults, fault)(graph, "agents.1.bn2")
    report = check(node, arrays, runners=[graph], stages=["layers"])
    assert report.first_difference == "agents.1.bn2"


def test_the_exchange_finds_a_lost_array(runner, small, arrays):
    write = runner.write_arrays
    runner.write_arrays = lambda given: write({n: a for n, a in given.items() if n != "reduce.bn.running_var"})
    write({"reduce.bn.running_var": arrays["reduce.bn.running_var"] + 1})
    report = check(small, arrays, runners=[runner], stages=["exchange"])
    assert report.first_difference == "reduce.bn.running_var"
