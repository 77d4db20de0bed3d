"""Parity finds planted faults in either framework, at a first, a middle and a last layer, and names the layer."""

import pytest

from maam import spec
from maam.parity import check
from maam.parity.stages import steps as steps_stage

pytest.importorskip("torch")  # the referee of gradients and steps

NORMS = ("agents.0.bn1", "agents.1.bn2", "reduce.bn")
CONVS = ("agents.0.conv1", "agents.1.conv1", "agents.2.conv2")
WEIGHTS = ("agents.0.conv1.weight", "agents.2.conv2.weight", "classifier.fc2.weight")


def names_failed(report):
    return {row.stage for row in report.failures}


def test_no_fault_no_failure(runner, small, arrays):
    report = check(small, arrays, runners=[runner], stages=["exchange", "layers", "forward", "gradients"])
    assert report.passed
    assert report.first_difference == ""


@pytest.mark.parametrize("path", NORMS)
@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        ("wrong_momentum", "running statistics"),
        ("biased_variance", "running statistics"),
        ("epsilon", "layers, eval"),
    ],
)
def test_batch_norm(runner, small, arrays, faults, fault, stage, path):
    getattr(faults, fault)(runner, path)
    report = check(small, arrays, runners=[runner], stages=["layers", "forward"])
    assert stage in names_failed(report)
    assert report.first_difference == path


@pytest.mark.parametrize("path", CONVS)
def test_wrong_padding(runner, small, arrays, faults, path):
    faults.wrong_padding(runner, path)
    report = check(small, arrays, runners=[runner], stages=["layers", "forward"])
    assert {"layers, eval", "layers, train", "logits, eval"} <= names_failed(report)
    assert report.first_difference == path


def test_permuted_branches(runner, small, arrays, faults):
    faults.permuted_branches(runner, "agents")
    report = check(small, arrays, runners=[runner], stages=["layers", "forward"])
    assert report.first_difference == "agents"


def test_permuted_branches_at_equal_fusion_weights(runner, small, faults):
    # The forward pass is the same at alpha = 0; the gradient of alpha is not.
    faults.permuted_branches(runner, "agents")
    report = check(small, spec.draw(small.parameters(), 0), runners=[runner], stages=["layers", "gradients"])
    assert names_failed(report) == {"gradients, fresh weights"}
    assert report.first_difference == "agents.alpha"


@pytest.mark.parametrize("path", WEIGHTS)
@pytest.mark.parametrize("fault", ["nesterov_ignored", "weight_decay_skipped"])
def test_optimizer(runner, small, faults, fault, path, monkeypatch):
    monkeypatch.setattr(steps_stage, "OPTIMIZERS", {"sgd": steps_stage.OPTIMIZERS["sgd"]})
    getattr(faults, fault)(runner, path)
    report = check(small, runners=[runner], stages=["steps"])
    assert names_failed(report) == {"ten steps, sgd"}
    assert report.first_difference == path


@pytest.mark.parametrize("fault", ["epsilon", "wrong_momentum"])
def test_in_graph_mode(small, arrays, faults, fault):
    pytest.importorskip("mindspore")
    from maam.parity import make_runners

    graph = make_runners(small, arrays, ["mindspore"])[0][0]
    assert graph.name == "mindspore graph"
    getattr(faults, fault)(graph, "agents.1.bn2")
    report = check(small, arrays, runners=[graph], stages=["layers"])
    assert report.first_difference == "agents.1.bn2"


def test_fault_breaks_the_free_run(runner, small, faults):
    for path in WEIGHTS:
        faults.nesterov_ignored(runner, path)
    report = check(small, runners=[runner], stages=["free run"], steps=20)
    assert names_failed(report) == {"free run, 20 steps"}


def test_lost_array_is_found_by_the_exchange(runner, small, arrays):
    write = runner.write_arrays
    runner.write_arrays = lambda given: write({n: a for n, a in given.items() if n != "reduce.bn.running_var"})
    report = check(small, arrays, runners=[runner], stages=["exchange"])
    write({"reduce.bn.running_var": arrays["reduce.bn.running_var"] + 1})
    report = check(small, arrays, runners=[runner], stages=["exchange"])
    assert report.first_difference == "reduce.bn.running_var"
