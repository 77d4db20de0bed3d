"""The whole parity check, on small models of every kind."""

import re

import numpy as np
import pytest

from maam import data, spec
from maam.errors import SpecError
from maam.parity import STAGES, Verdict, check, make_runners
from maam.parity.report import draw_depth
from maam.parity.stages import steps as steps_stage
from maam.parity.stages.lattice import STAGE as LATTICE
from maam.weights import write_weights
from tests.errors import error_of
from tests.parity.faults import wrong_momentum
from tests.parity.models import NARROW, SMALL, TINY, scrambled
from tests.spec.nodes import FLATTEN, RELU, conv, linear, model, norm, residual, squeeze

pytest.importorskip("torch")
pytest.importorskip("mindspore")

RUNNERS = ["torch", "torch compiled", "mindspore graph", "mindspore pynative"]
DROPOUT = spec.preset("maam_digits", **NARROW, dropout=0.5)
slow = pytest.mark.slow


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=slow)])
def full(request):
    """Run every stage with every runner, on two branches and with one optimizer: MindSpore compiles for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_stage, "OPTIMIZERS", {"adamw": steps_stage.OPTIMIZERS["adamw"]})
        return check(TINY, steps=5, compiled=request.param)


@pytest.fixture(scope="module")
def runners():
    return make_runners(SMALL, scrambled(SMALL), compiled=False)[0]


def test_every_runner_goes_through_every_stage(full, tmp_path):
    assert list(STAGES)[:3] == ["exchange", "lattice", "layers"]
    assert full.complete, full.to_markdown()
    assert full.first_difference == ""
    stages = {runner: {row.stage for row in full.rows if row.runner == runner} for runner in RUNNERS}
    assert stages["mindspore graph"] == stages["mindspore pynative"] == stages["torch"]
    if compiled := stages["torch compiled"]:
        single = {"layers, eval", "layers, train", "layers, probe inputs", "running statistics"}
        assert stages["torch"] - compiled == single | {"float16 output", "bfloat16 output"}
        assert len(compiled) == 10
    draw_depth(full, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    assert {row.verdict for row in full.rows if row.stage != "bfloat16 output"} == {Verdict.PASS}
    kernels = [row for row in full.rows if row.verdict is Verdict.NOT_AVAILABLE]
    assert {row.stage for row in kernels} == {"bfloat16 output"}
    assert all(row.runner.startswith("mindspore") and "no kernel for" in row.note for row in kernels)
    rows = [row for row in full.rows if row.stage == LATTICE]
    assert [row.runner for row in rows] == [runner for runner in RUNNERS if stages[runner]]
    assert all(row.absolute == 0 and row.note == "3 cases" for row in rows)


@pytest.mark.parametrize(
    ("frameworks", "compiled"), [(["torch"], False), pytest.param(["torch", "mindspore"], True, marks=slow)]
)
def test_every_optimizer(frameworks, compiled):
    report = check(SMALL, frameworks=frameworks, compiled=compiled, stages=["steps"])
    assert report.complete, report.to_markdown()
    assert {row.stage for row in report.rows} == {"ten steps, sgd", "ten steps, adam", "ten steps, adamw"}


BASELINE = {"base": "maam_digits", "channels": 8}
ARCHITECTURES = {
    "rnn": (spec.preset("rnn", image_size=6), []),
    "dynamic": (spec.maam(4, fusion="dynamic", scales=(1, 2, 3), act_layer="gelu"), []),
    "depthwise": (spec.maam(4, 6, depthwise=True, act_layer="hard_swish"), []),
    "t_cnn": (spec.preset("t_cnn", **BASELINE), ["steps"]),
    "no attention": (spec.preset("without_agent_attention", **BASELINE), ["steps"]),
}


@pytest.mark.parametrize("name", ["rnn", *(pytest.param(name, marks=slow) for name in ARCHITECTURES if name != "rnn")])
def test_other_architectures(name):
    node, stages = ARCHITECTURES[name]
    report = check(node, compiled=False, stages=["exchange", "lattice", "layers", "forward", "gradients", *stages])
    assert report.complete, report.to_markdown()


def test_a_new_composite():
    """A gate that maam does not define passes in every backend: backends know primitives only."""
    report = check(squeeze(8), compiled=False)
    assert report.complete, report.to_markdown()
    assert {row.runner for row in report.rows} >= {"torch", "mindspore graph", "mindspore pynative"}


def deep(shape, width, *blocks):
    children = {"stem": conv(shape[0], width), **{f"block{index}": block for index, block in enumerate(blocks)}}
    return model(shape, **children, flatten=FLATTEN, fc=linear(width * shape[1] * shape[2], 10))


def test_the_lattice_is_not_applicable_where_small_integers_prove_nothing():
    block = residual(conv=conv(8, 8), bn=norm(8), relu=RELU)
    for node, note in (
        (spec.maam(4, act_layer="gelu"), "act1 is not exact"),
        (deep((1, 8, 8), 8, *12 * [block]), "float32 cannot hold the sums of small integers"),
        (deep((3, 16, 16), 4, *3 * [spec.maam(4, scales=(1, 2, 4))]), "with 15 binary digits after the point"),
    ):
        (row,) = check(node, frameworks=["torch"], compiled=False, stages=["lattice"], batch_size=2).rows
        assert row.verdict is Verdict.NOT_APPLICABLE
        assert note in row.note


class TestDropout:
    """Stages leave out what is random, and compare the rest."""

    @pytest.mark.slow
    def test_stages(self, monkeypatch):
        monkeypatch.setattr(steps_stage, "OPTIMIZERS", {"sgd": steps_stage.OPTIMIZERS["sgd"]})
        report = check(DROPOUT, compiled=False, stages=["layers", "forward", "gradients", "steps"])
        assert not report.failures, report.to_markdown()
        left_out = {row.stage for row in report.rows if row.verdict is Verdict.NOT_RUN}
        assert {"logits, train", "running statistics, whole model"} < left_out
        assert not left_out & {"layers, eval", "layers, train", "running statistics", "logits, eval"}
        assert {row.verdict for row in report.rows if row.stage.startswith("gradients")} == {Verdict.NOT_RUN}
        assert all("dropout left out" in row.note for row in report.rows if row.stage == "layers, train")

    @pytest.mark.parametrize("mode", ["torch", "mindspore pynative", pytest.param("mindspore graph", marks=slow)])
    def test_a_fault_in_another_layer_is_found(self, mode):
        arrays = spec.draw(DROPOUT.parameters(), 0)
        runner = next(r for r in make_runners(DROPOUT, arrays, compiled=False)[0] if r.name == mode)
        wrong_momentum(runner, "reduce.bn")
        report = check(DROPOUT, runners=[runner], stages=["layers"])
        assert report.first_difference.startswith("reduce.bn"), report.to_markdown()

    def test_dropout_alone_is_not_run_in_train_mode(self):
        report = check(spec.Dropout(p=0.5), compiled=False, frameworks=["torch"], stages=["layers"])
        verdicts = {row.stage: row.verdict for row in report.rows}
        assert verdicts == {"layers, eval": Verdict.PASS, "layers, train": Verdict.NOT_RUN}


def set_training(model, training):
    (model.train if hasattr(model, "train") else model.set_train)(training)


class TestOwnModels:
    """Runners that the user passes keep their weights and modes."""

    @pytest.mark.slow
    def test_weights_and_mode_are_restored(self, runners):
        for runner in runners:
            before = runner.read_arrays()
            set_training(runner.model, False)
            report = check(SMALL, runners=[runner], stages=["layers", "forward"])
            assert report.complete, report.to_markdown()
            assert all((array == before[name]).all() for name, array in runner.read_arrays().items())
            assert not runner.model.training

    def test_a_frozen_batch_norm_stays_frozen(self, runner):
        norm = runner.model.agents[0].bn1
        set_training(runner.model, True)
        set_training(norm, False)
        check(SMALL, runners=[runner], stages=["forward"])
        assert runner.model.training
        assert not norm.training

    def test_the_weights_of_a_file_come_before_those_of_models(self, runner, tmp_path):
        arrays, seen, write = spec.draw(SMALL.parameters(), 1), [], runner.write_arrays
        write_weights(tmp_path / "a.safetensors", SMALL, arrays)
        runner.write_arrays = lambda given: seen.append(given) or write(given)
        check(tmp_path / "a.safetensors", runners=[runner], stages=["forward"])
        assert all((seen[0][name] == array.astype(np.float32)).all() for name, array in arrays.items())


def test_a_model_of_one_class_has_no_loss():
    node = spec.preset("maam_digits", **NARROW, num_classes=1)
    report = check(node, frameworks=["torch"], compiled=False, stages=["free run"], steps=2)
    assert [row.note for row in report.rows] == ["the loss is 0 from the start"]


@pytest.mark.slow
def test_real_images_and_a_batch_of_one(runners):
    digits = data.digits("test")
    images = data.to_float(digits.images)
    report = check(SMALL, images=images, labels=digits.labels, runners=runners, stages=["forward"])
    assert report.complete, report.to_markdown()
    report = check(SMALL, batch_size=1, runners=runners, stages=["forward"])
    assert report.passed, report.to_markdown()


@pytest.fixture(scope="module")
def layer_runners():
    """Return runners of a layer: graph mode compiles once for each shape."""
    node = spec.maam(4)
    return make_runners(node, spec.draw(node.parameters(), 0), compiled=False)[0]


@pytest.mark.parametrize("shape", [(4, 1, 1), pytest.param((4, 7, 5), marks=slow)])
@pytest.mark.parametrize("constant", [pytest.param(True, marks=slow), False])
def test_degenerate_inputs(layer_runners, shape, constant):
    generator = np.random.default_rng(0)
    images = np.full((4, *shape), 0.5, np.float32) if constant else generator.random((4, *shape)).astype(np.float32)
    labels = np.zeros(4, np.int32)
    report = check(spec.maam(4), images=images, labels=labels, runners=layer_runners, stages=["layers", "forward"])
    assert report.complete, report.to_markdown()
    for runner in layer_runners:
        found = runner.gradients(images, np.ones((4, *shape), np.float32))
        assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


BATCH = {"images": np.zeros((4, 1, 8, 8), np.float32), "labels": np.zeros(4, int)}
REFUSED = [
    ({"stages": ["nothing"]}, "stages: expected names from exchange, .* got 'nothing'"),
    ({"frameworks": ["jax"]}, "expected one of torch, mindspore, reference, got 'jax'"),
    ({**BATCH, "labels": None}, "expected one for each of 4 images, got none"),
    ({**BATCH, "labels": np.eye(4, dtype=int)}, r"labels: expected integers of shape \(4,\), got int64 of sh"),
    ({**BATCH, "labels": np.full(4, 0.5)}, "labels: expected integers .* got float64"),
    ({**BATCH, "images": np.zeros((4, 1, 8, 8), np.uint8)}, "images: expected floating-point .* got uint8"),
    ({**BATCH, "images": np.full((4, 1, 8, 8), np.nan)}, "images: expected finite numbers, got NaN"),
    ({"batch_size": True}, "batch_size: expected an integer of at least 1, got True"),
    *(({"spec": node}, "expected a spec or the name of a preset, got an") for node in (None, {"kind": "x"}, spec.maam)),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_arguments(options, message):
    assert re.search(message, error_of(SpecError, check, **{"spec": SMALL, **options}))
