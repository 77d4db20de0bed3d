"""The whole parity check, on small models of every kind."""

import numpy as np
import pytest

from maam import data, spec
from maam.errors import SpecError
from maam.parity import STAGES, Verdict, check, make_runners
from maam.parity.report import draw_depth
from maam.parity.stages import steps as steps_stage
from maam.parity.stages.lattice import STAGE as LATTICE
from maam.spec.fields import Size
from maam.weights import write_weights
from tests.parity.faults import wrong_momentum

pytest.importorskip("torch")
pytest.importorskip("mindspore")

ZEROS = np.zeros((4, 1, 8, 8), np.float32)
RUNNERS = ["torch", "torch compiled", "mindspore graph", "mindspore pynative"]
TINY = {"channels": 4, "hidden_channels": 2, "hidden_features": 8}
slow = pytest.mark.slow


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=slow)])
def full(request):
    """Run every stage with every runner, on two branches and with one optimizer: MindSpore compiles for each."""
    small = spec.preset("maam_digits", **TINY, num_agents=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_stage, "OPTIMIZERS", {"adamw": steps_stage.OPTIMIZERS["adamw"]})
        return check(small, steps=5, compiled=request.param)


@pytest.fixture(scope="module")
def runners(small, arrays):
    return make_runners(small, arrays, compiled=False)[0]


def test_every_runner_goes_through_every_stage(full, tmp_path):
    assert list(STAGES)[:3] == ["exchange", "lattice", "layers"]
    assert full.complete, full.to_markdown()
    assert full.first_difference == ""
    stages = {runner: {row.stage for row in full.rows if row.runner == runner} for runner in RUNNERS}
    single = {"layers, eval", "layers, train", "layers, probe inputs", "running statistics"}
    single |= {"float16 output", "bfloat16 output"}
    assert stages["mindspore graph"] == stages["mindspore pynative"] == stages["torch"]
    if compiled := stages["torch compiled"]:
        assert stages["torch"] - compiled == single
        assert len(compiled) == 10
    draw_depth(full, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    verdicts = {row.verdict for row in full.rows if row.stage != "bfloat16 output"}
    assert verdicts == {Verdict.PASS}
    kernels = [row for row in full.rows if row.verdict is Verdict.NOT_AVAILABLE]
    assert {row.stage for row in kernels} == {"bfloat16 output"}
    assert all(row.runner.startswith("mindspore") and "no kernel for" in row.note for row in kernels)
    rows = [row for row in full.rows if row.stage == LATTICE]
    assert [row.runner for row in rows] == [runner for runner in RUNNERS if stages[runner]]
    assert all(row.absolute == 0 and row.note == "3 cases" for row in rows)


@pytest.mark.parametrize("frameworks", [["torch"], pytest.param(["torch", "mindspore"], marks=slow)])
def test_every_optimizer(small, frameworks):
    report = check(small, frameworks=frameworks, stages=["steps"])
    assert report.complete, report.to_markdown()
    assert {row.stage for row in report.rows} == {"ten steps, sgd", "ten steps, adam", "ten steps, adamw"}


def baseline(name):
    return spec.preset(name, base="maam_digits", channels=8)


@pytest.mark.parametrize(
    ("node", "stages"),
    [
        pytest.param(spec.maam(4, fusion="dynamic", scales=(1, 2, 3), act_layer="gelu"), [], id="dynamic", marks=slow),
        pytest.param(spec.maam(4, 6, depthwise=True, act_layer="hard_swish"), [], id="depthwise", marks=slow),
        pytest.param(baseline("t_cnn"), ["steps"], id="t_cnn", marks=slow),
        pytest.param(baseline("without_agent_attention"), ["steps"], id="without_agent_attention", marks=slow),
        pytest.param(spec.preset("rnn", image_size=6), [], id="rnn"),
    ],
)
def test_other_architectures(node, stages):
    report = check(node, compiled=False, stages=["exchange", "lattice", "layers", "forward", "gradients", *stages])
    assert report.complete, report.to_markdown()


def conv(inputs, outputs, size=3):
    return spec.Conv2d(in_channels=inputs, out_channels=outputs, kernel_size=size, padding=size // 2)


@spec.composite
def squeeze_excite(channels: Size, *, reduced: Size = 2) -> spec.Scale:
    """Squeeze and excitation: (channels, H, W) to the same shape."""
    return spec.Scale(
        children={
            "pool": spec.GlobalPool(),
            "conv1": conv(channels, reduced, 1),
            "act": spec.Activation(function="relu"),
            "conv2": conv(reduced, channels, 1),
            "gate": spec.Activation(function="sigmoid"),
        }
    )


def test_a_new_composite():
    """A gate defined in this file passes in every backend: backends know primitives only."""
    report = check(squeeze_excite(8), compiled=False)
    assert report.complete, report.to_markdown()
    assert {row.runner for row in report.rows} >= {"torch", "mindspore graph", "mindspore pynative"}
    with pytest.raises(SpecError, match="squeeze_excite: reduced"):
        squeeze_excite(8, reduced=0)


class TestLattice:
    """The lattice is not applicable where small integers prove nothing, and the row says why."""

    def note(self, node, **options):
        (row,) = check(node, frameworks=["torch"], compiled=False, stages=["lattice"], **options).rows
        assert row.verdict is Verdict.NOT_APPLICABLE
        return row.note

    def network(self, shape, width, blocks):
        layers = {"stem": conv(shape[0], width), **{f"block{index}": block for index, block in enumerate(blocks)}}
        features = width * shape[1] * shape[2]
        layers |= {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=features, out_features=10)}
        return spec.Model(name="deep", input_shape=shape, children=layers)

    def test_an_operation_is_not_exact(self):
        assert "act1 is not exact" in self.note(spec.maam(4, act_layer="gelu"))

    def test_sums_are_too_large(self):
        """Twelve residual blocks exceed the integers that float32 holds."""
        layers = {"conv": conv(8, 8), "bn": spec.BatchNorm2d(num_features=8), "relu": spec.Activation(function="relu")}
        deep = self.network((1, 8, 8), 8, 12 * [spec.Residual(children=layers)])
        assert "float32 cannot hold the sums of small integers" in self.note(deep)

    def test_fractions_count(self):
        node = self.network((3, 16, 16), 4, 3 * [spec.maam(4, scales=(1, 2, 4))])
        assert "with 15 binary digits after the point" in self.note(node, batch_size=2)


class TestDropout:
    """Stages leave out what is random, and compare the rest."""

    @pytest.mark.slow
    def test_stages(self, monkeypatch):
        monkeypatch.setattr(steps_stage, "OPTIMIZERS", {"sgd": steps_stage.OPTIMIZERS["sgd"]})
        node = spec.preset("maam_digits", **TINY, num_agents=2, dropout=0.5)
        report = check(node, compiled=False, stages=["layers", "forward", "gradients", "steps"])
        assert not report.failures, report.to_markdown()
        left_out = {row.stage for row in report.rows if row.verdict is Verdict.NOT_RUN}
        assert {"logits, train", "running statistics, whole model"} < left_out
        assert not left_out & {"layers, eval", "layers, train", "running statistics", "logits, eval"}
        assert {row.verdict for row in report.rows if row.stage.startswith("gradients")} == {Verdict.NOT_RUN}
        assert all("dropout left out" in row.note for row in report.rows if row.stage == "layers, train")

    @pytest.mark.parametrize("mode", ["torch", "mindspore pynative", pytest.param("mindspore graph", marks=slow)])
    def test_a_fault_in_another_layer_is_found(self, mode):
        node = spec.preset("maam_digits", **TINY, num_agents=2, dropout=0.5)
        arrays = spec.draw(node.parameters(), 0)
        runner = next(r for r in make_runners(node, arrays, compiled=False)[0] if r.name == mode)
        wrong_momentum(runner, "reduce.bn")
        report = check(node, arrays, runners=[runner], stages=["layers"])
        assert report.first_difference.startswith("reduce.bn"), report.to_markdown()

    def test_dropout_alone_is_not_run_in_train_mode(self):
        report = check(spec.Dropout(p=0.5), compiled=False, frameworks=["torch"], stages=["layers"])
        verdicts = {row.stage: row.verdict for row in report.rows}
        assert verdicts == {"layers, eval": Verdict.PASS, "layers, train": Verdict.NOT_RUN}


class TestOwnModels:
    """Runners that the user passes keep their weights and modes."""

    @pytest.mark.slow
    def test_weights_and_mode_are_restored(self, small, runners):
        for runner in runners:
            before = runner.read_arrays()
            runner.model.eval() if runner.name == "torch" else runner.model.set_train(False)
            report = check(small, runners=[runner], stages=["layers", "forward"])
            assert report.complete, report.to_markdown()
            assert all((array == before[name]).all() for name, array in runner.read_arrays().items())
            assert not runner.model.training

    def test_a_frozen_batch_norm_stays_frozen(self, small, runner):
        norm = runner.model.agents[0].bn1
        runner.model.train() if runner.name == "torch" else runner.model.set_train()
        norm.eval() if runner.name == "torch" else norm.set_train(False)
        check(small, runners=[runner], stages=["forward"])
        assert runner.model.training
        assert not norm.training

    def test_the_weights_of_a_file_come_before_those_of_models(self, small, arrays, tmp_path):
        write_weights(tmp_path / "a.safetensors", small, arrays)
        runners = make_runners(small, spec.draw(small.parameters(), 1), ["torch"], compiled=False)[0]
        seen = []
        runners[0].write_arrays = lambda given, write=runners[0].write_arrays: seen.append(given) or write(given)
        check(tmp_path / "a.safetensors", runners=runners, stages=["forward"])
        assert all((seen[0][name] == array.astype(np.float32)).all() for name, array in arrays.items())


def test_a_model_of_one_class_has_no_loss():
    node = spec.preset("maam_digits", **TINY, num_classes=1)
    report = check(node, frameworks=["torch"], compiled=False, stages=["free run"], steps=2)
    assert [row.note for row in report.rows] == ["the loss is 0 from the start"]


@pytest.mark.slow
def test_real_images_and_a_batch_of_one(arrays, small, runners):
    digits = data.digits("test")
    images = data.to_float(digits.images)
    report = check(small, arrays, images=images, labels=digits.labels, runners=runners, stages=["forward"])
    assert report.complete, report.to_markdown()
    report = check(small, arrays, batch_size=1, runners=runners, stages=["forward"])
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


def batch(images=ZEROS, labels=np.zeros(4, int)):  # noqa: B008
    return {"images": images, "labels": labels}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ["nothing"]}, "stages: expected names from exchange, .* got 'nothing'"),
        ({"frameworks": ["jax"]}, "expected one of torch, mindspore, reference, got 'jax'"),
        ({"images": ZEROS}, "expected one for each of 4 images, got none"),
        (batch(labels=np.eye(4, dtype=int)), r"labels: expected integers of shape \(4,\), got int64 of sh"),
        (batch(labels=np.full(4, 0.5)), "labels: expected integers .* got float64"),
        (batch(ZEROS.astype(np.uint8)), "images: expected floating-point .* got uint8"),
        (batch(ZEROS * np.nan), "images: expected finite numbers, got NaN"),
        ({"batch_size": True}, "batch_size: expected an integer of at least 1, got True"),
        *(
            ({"spec": node}, "expected a spec or the name of a preset, got an")
            for node in (None, {"kind": "x"}, spec.maam)
        ),
    ],
)
def test_bad_arguments(small, options, message):
    with pytest.raises(SpecError, match=message):
        check(**{"spec": small, **options})
