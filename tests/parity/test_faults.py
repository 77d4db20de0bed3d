"""Parity finds planted faults in either framework, at a first, a middle and a last layer, and names the layer."""

import pytest

from maam import spec
from maam.parity import check, make_runners
from maam.parity.stages import steps as steps_stage
from tests.parity import faults
from tests.parity.models import EAGER, SIZES, SMALL, TINY, make_runner, scrambled
from tests.spec.nodes import RELU, chain

pytest.importorskip("torch")  # the gradient reference

NORMS = ("agents.0.bn1", "agents.1.bn2", "reduce.bn")
CONVS = ("agents.0.conv1", "agents.1.conv1", "agents.2.conv2")
ACTIVATIONS = ("agents.0.act1", "agents.2.act2", "classifier.act")
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


def compare(runner, *stages, node=SMALL, **options):
    """Return the report on a runner, whose own weights are compared if none are given."""
    return check(node, runners=[runner], stages=stages, **options)


def failed_stages(report):
    return {row.stage for row in report.failures}


def test_no_fault_no_failure(runner):
    report = compare(runner, "exchange", "layers", "forward", "gradients")
    assert report.passed
    assert report.first_difference == ""


FAULTS = cases(STAGE, NORMS) + cases(["wrong_padding"], CONVS)
OF_OPTIMIZERS = cases(["nesterov_ignored", "weight_decay_skipped"], WEIGHTS)


@pytest.mark.parametrize(("runner", "fault", "path"), FAULTS, indirect=["runner"])
def test_layers(runner, fault, path):
    getattr(faults, fault)(runner, path)
    report = compare(runner, "layers", "forward")
    assert report.first_difference == path
    if fault in STAGE:
        assert STAGE[fault] in failed_stages(report)
    else:
        assert {"layers, eval", "layers, train", "logits, eval"} <= failed_stages(report)
        assert {row.layer for row in report.failures if row.stage.startswith("logits")} == {path}


@pytest.mark.slow_in("mindspore")
def test_permuted_branches(runner):
    """At equal fusion weights (alpha = 0) the forward pass is the same; the gradient of alpha is not."""
    faults.permuted_branches(runner, "agents")
    assert compare(runner, "layers", "forward").first_difference == "agents"
    report = compare(runner, "layers", "gradients", arrays=spec.draw(SMALL.parameters(), 0))
    assert failed_stages(report) == {"gradients, fresh weights"}
    assert report.first_difference == "agents.alpha"


@pytest.mark.parametrize(("framework", "fault", "path"), cases(faults.ACTIVATIONS, ACTIVATIONS))
@pytest.mark.parametrize("weights", ["drawn", pytest.param("scrambled", marks=pytest.mark.slow)])
def test_activations(framework, fault, path, weights):
    """The faults do not show on the network's own inputs, which are small."""
    node = spec.preset("maam_digits", **SIZES, act_layer=faults.ACTIVATIONS[fault][0])
    arrays = scrambled(node) if weights == "scrambled" else spec.draw(node.parameters(), 0)
    runner = make_runner(framework, node, arrays)
    faults.wrong_activation(runner, path, fault)
    report = compare(runner, "layers", node=node)
    assert "layers, probe inputs" in failed_stages(report)
    assert report.first_difference == path


@pytest.mark.parametrize("framework", EAGER)
def test_padding_of_max_pooling(framework):
    """Behind a ReLU no value is negative, so padding with zeros does not show."""
    node = chain(act=RELU, pool=spec.MaxPool2d(kernel_size=3, stride=2, padding=1))
    runner = make_runner(framework, node, {})
    faults.zero_padded_pooling(runner, "pool")
    report = compare(runner, "layers", node=node)
    assert (failed_stages(report), report.first_difference) == ({"layers, probe inputs"}, "pool")


def test_a_parameter_without_gradient(runner):
    """PyTorch raises an error for it, MindSpore returns zeros."""
    faults.unused(runner, "classifier.fc1")
    report = compare(runner, "gradients")
    assert failed_stages(report) == {"gradients, fresh weights"}
    assert report.first_difference == "classifier.fc1.weight"


def test_an_error_of_a_framework_keeps_the_report(runner):
    def fail(*_):
        raise RuntimeError("no kernel\nat all")

    runner.gradients = fail
    report = compare(runner, "forward", "gradients")
    found = [(row.stage, row.note) for row in report.failures]
    assert found == [("gradients", "stopped by RuntimeError: no kernel at all")]
    assert len(report.rows) > 3


@pytest.mark.slow_in("mindspore")
@pytest.mark.parametrize(("shared_runner", "fault", "path"), OF_OPTIMIZERS, indirect=["shared_runner"], scope="module")
def test_optimizer(shared_runner, fault, path, monkeypatch):
    monkeypatch.setattr(steps_stage, "OPTIMIZERS", {"sgd": steps_stage.OPTIMIZERS["sgd"]})
    report = compare(getattr(faults, fault)(shared_runner, path), "steps")
    assert failed_stages(report) == {"ten steps, sgd"}
    assert report.first_difference == path


@pytest.mark.slow_in("mindspore")
def test_a_fault_breaks_the_free_run(shared_runner):
    faulty = shared_runner
    for path in WEIGHTS:
        faulty = faults.nesterov_ignored(faulty, path)
    assert failed_stages(compare(faulty, "free run", steps=20)) == {"free run, 20 steps"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrong_momentum", "epsilon"])
def test_in_graph_mode(fault):
    """Graph mode compiles each layer that is compared alone, so the network has two branches only."""
    pytest.importorskip("mindspore")
    graph = make_runners(TINY, scrambled(TINY), ["mindspore"])[0][0]
    assert graph.name == "mindspore graph"
    getattr(faults, fault)(graph, "agents.1.bn2")
    assert compare(graph, "layers", node=TINY).first_difference == "agents.1.bn2"


def test_the_exchange_finds_a_lost_array(runner):
    write, lost, arrays = runner.write_arrays, "reduce.bn.running_var", scrambled(SMALL)
    runner.write_arrays = lambda given: write({name: array for name, array in given.items() if name != lost})
    write({lost: arrays[lost] + 1})
    assert compare(runner, "exchange", arrays=arrays).first_difference == lost
