"""The whole parity check, on small models of every kind."""

import inspect

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

pytest.importorskip("torch")
pytest.importorskip("mindspore")

ZEROS = np.zeros((4, 1, 8, 8), np.float32)
RUNNERS = ["torch", "torch compiled", "mindspore graph", "mindspore pynative"]
TINY = {"channels": 4, "hidden_channels": 2, "hidden_features": 8}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def full(small):
    """Run every stage with every runner, the steps with one optimizer: MindSpore compiles a program for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps_stage, "OPTIMIZERS", {"adamw": steps_stage.OPTIMIZERS["adamw"]})
        return check(small, steps=20)


@pytest.fixture(scope="module")
def runners(small, arrays):
    """Return a runner of each framework and mode except torch.compile."""
    return make_runners(small, arrays, compiled=False)[0]


def test_all_runners_agree(full):
    assert full.complete, full.to_markdown()
    assert full.first_difference == ""


def test_every_runner_goes_through_every_stage(full):
    stages = {runner: {row.stage for row in full.rows if row.runner == runner} for runner in RUNNERS}
    single = {"layers, eval", "layers, train", "running statistics", "float16 output", "bfloat16 output"}
    assert stages["mindspore graph"] == stages["mindspore pynative"] == stages["torch"]
    assert stages["torch"] - stages["torch compiled"] == single
    assert len(stages["torch compiled"]) == 10


def test_nothing_is_left_out_silently(full):
    verdicts = {row.verdict for row in full.rows if row.stage != "bfloat16 output"}
    assert verdicts == {Verdict.PASS}
    kernels = [row for row in full.rows if row.verdict is Verdict.NOT_AVAILABLE]
    assert {row.stage for row in kernels} == {"bfloat16 output"}
    assert all(row.runner.startswith("mindspore") and "no kernel for" in row.note for row in kernels)


def test_the_lattice_is_exact(full):
    rows = [row for row in full.rows if row.stage == LATTICE]
    assert len(rows) == 4
    assert all(row.absolute == 0 and "6 cases" in row.note for row in rows)


def test_plot(full, tmp_path):
    draw_depth(full, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("frameworks", [["torch"], pytest.param(["torch", "mindspore"], marks=slow)])
def test_every_optimizer(small, frameworks):
    report = check(small, frameworks=frameworks, stages=["steps"])
    assert report.complete, report.to_markdown()
    assert {row.stage for row in report.rows} == {"ten steps, sgd", "ten steps, adam", "ten steps, adamw"}


def test_stages_have_an_order():
    assert list(STAGES)[:3] == ["exchange", "lattice", "layers"]


@pytest.mark.parametrize(
    ("node", "steps"),
    [
        pytest.param(spec.maam(4, fusion="dynamic", scales=(1, 2, 3), act_layer="gelu"), False, id="dynamic"),
        pytest.param(spec.maam(4, 6, depthwise=True, pool=(1, 2), act_layer="hard_swish"), False, id="depthwise"),
        pytest.param(spec.preset("t_cnn", base="maam_digits", channels=8), True, id="t_cnn", marks=slow),
        pytest.param(
            spec.preset("without_agent_attention", base="maam_digits", channels=8),
            True,
            id="without_agent_attention",
            marks=slow,
        ),
        pytest.param(spec.preset("rnn", image_size=6), False, id="rnn"),
    ],
)
def test_other_architectures(node, steps):
    stages = ["exchange", "lattice", "layers", "forward", "gradients", *(["steps"] if steps else [])]
    report = check(node, compiled=False, stages=stages)
    assert report.complete, report.to_markdown()


@spec.composite
def squeeze_excite(channels: Size, *, reduced: Size = 2) -> spec.Scale:
    """Squeeze and excitation: (channels, H, W) to the same shape."""
    return spec.Scale(
        children={
            "pool": spec.GlobalPool(),
            "conv1": spec.Conv2d(in_channels=channels, out_channels=reduced, kernel_size=1),
            "act": spec.Activation(function="relu"),
            "conv2": spec.Conv2d(in_channels=reduced, out_channels=channels, kernel_size=1),
            "gate": spec.Activation(function="sigmoid"),
        }
    )


class TestNewComposite:
    """A gate defined in this file passes in every backend: backends know primitives only."""

    def test_parity(self):
        report = check(squeeze_excite(8), compiled=False)
        assert report.complete, report.to_markdown()
        assert {row.runner for row in report.rows} >= {"torch", "mindspore graph", "mindspore pynative"}

    def test_as_layer_in_both_frameworks(self):
        import mindspore as ms
        import torch

        from maam.mindspore.layers import Layer as Cell
        from maam.torch.layers import Layer as Module

        class TorchGate(Module, composite=squeeze_excite):
            pass

        class MindSporeGate(Cell, composite=squeeze_excite):
            pass

        assert list(inspect.signature(TorchGate).parameters) == ["channels", "reduced", "device", "dtype"]
        assert list(inspect.signature(MindSporeGate).parameters) == ["channels", "reduced"]
        x = np.ones((2, 8, 3, 3), np.float32)
        assert TorchGate(8)(torch.from_numpy(x)).shape == x.shape
        assert MindSporeGate(8, reduced=3)(ms.Tensor(x)).shape == x.shape

    def test_a_bad_argument(self):
        with pytest.raises(SpecError, match="squeeze_excite: reduced"):
            squeeze_excite(8, reduced=0)


class TestLattice:
    """The lattice is not applicable where small integers prove nothing, and the row says why."""

    def row(self, node, **options):
        report = check(node, frameworks=["torch"], compiled=False, stages=["lattice"], **options)
        assert [row.verdict for row in report.rows] == [Verdict.NOT_APPLICABLE]
        return report.rows[0]

    def test_an_operation_is_not_exact(self):
        assert "act1 is not exact" in self.row(spec.maam(4, act_layer="gelu")).note

    def test_sums_are_too_large(self):
        """Twelve residual blocks exceed the integers that float32 holds."""
        block = spec.Residual(
            children={
                "conv": spec.Conv2d(in_channels=8, out_channels=8, kernel_size=3, padding=1),
                "bn": spec.BatchNorm2d(num_features=8),
                "relu": spec.Activation(function="relu"),
            }
        )
        layers = {"stem": spec.Conv2d(in_channels=1, out_channels=8, kernel_size=3, padding=1)}
        layers |= {f"block{index}": block for index in range(12)}
        layers |= {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=512, out_features=10)}
        deep = spec.Model(name="deep", input_shape=(1, 8, 8), children=layers)
        assert "float32 cannot hold the sums of small integers" in self.row(deep).note

    def test_fractions_count(self):
        layers = {"stem": spec.Conv2d(in_channels=3, out_channels=4, kernel_size=3, padding=1)}
        layers |= {f"maam{index}": spec.maam(4, scales=(1, 2, 4)) for index in range(3)}
        layers |= {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=1024, out_features=10)}
        node = spec.Model(name="pooling", input_shape=(3, 16, 16), children=layers)
        assert "with 15 binary digits after the point" in self.row(node, batch_size=2).note


class TestDropout:
    """Stages leave out what is random, and compare the rest."""

    def test_stages(self):
        node = spec.preset("maam_digits", channels=8, dropout=0.5)
        report = check(node, compiled=False, stages=["layers", "forward", "gradients", "steps"])
        assert not report.failures, report.to_markdown()
        left_out = {row.stage for row in report.rows if row.verdict is Verdict.NOT_RUN}
        assert {"logits, train", "running statistics, whole model"} < left_out
        assert not left_out & {"layers, eval", "layers, train", "running statistics", "logits, eval"}
        assert {row.verdict for row in report.rows if row.stage.startswith("gradients")} == {Verdict.NOT_RUN}
        assert all("dropout left out" in row.note for row in report.rows if row.stage == "layers, train")

    @pytest.mark.parametrize("mode", ["torch", "mindspore graph", "mindspore pynative"])
    def test_a_fault_in_another_layer_is_found(self, faults, mode):
        node = spec.preset("maam_digits", **TINY, num_agents=2, dropout=0.5)
        arrays = spec.draw(node.parameters(), 0)
        runner = next(r for r in make_runners(node, arrays, compiled=False)[0] if r.name == mode)
        faults.wrong_momentum(runner, "reduce.bn")
        report = check(node, arrays, runners=[runner], stages=["layers"])
        assert report.first_difference.startswith("reduce.bn"), report.to_markdown()

    def test_dropout_alone_is_not_run_in_train_mode(self):
        report = check(spec.Dropout(p=0.5), compiled=False, frameworks=["torch"], stages=["layers"])
        verdicts = {row.stage: row.verdict for row in report.rows}
        assert verdicts == {"layers, eval": Verdict.PASS, "layers, train": Verdict.NOT_RUN}


class TestOwnModels:
    """Runners that the user passes keep their weights and modes."""

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


def test_real_images(arrays, small, runners):
    digits = data.digits("test")
    images = data.to_float(digits.images)
    report = check(small, arrays, images=images, labels=digits.labels, runners=runners, stages=["forward"])
    assert report.complete, report.to_markdown()


def test_a_batch_of_one(small, arrays, runners):
    report = check(small, arrays, batch_size=1, runners=runners, stages=["forward"])
    assert report.passed, report.to_markdown()


@pytest.fixture(scope="module")
def layer_runners():
    """Return runners of a layer: graph mode compiles once for each shape."""
    node = spec.maam(4)
    return make_runners(node, spec.draw(node.parameters(), 0), compiled=False)[0]


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 7, 5)])
@pytest.mark.parametrize("constant", [True, False])
def test_degenerate_inputs(layer_runners, shape, constant):
    generator = np.random.default_rng(0)
    images = np.full((4, *shape), 0.5, np.float32) if constant else generator.random((4, *shape)).astype(np.float32)
    labels = np.zeros(4, np.int32)
    report = check(spec.maam(4), images=images, labels=labels, runners=layer_runners, stages=["layers", "forward"])
    assert report.complete, report.to_markdown()
    for runner in layer_runners:
        found = runner.gradients(images, np.ones((4, *shape), np.float32))
        assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ["nothing"]}, "stages: expected names from exchange, .* got 'nothing'"),
        ({"frameworks": ["jax"]}, "expected one of torch, mindspore, reference, got 'jax'"),
        ({"images": ZEROS}, "expected one for each of 4 images, got none"),
        (
            {"images": ZEROS, "labels": np.eye(4, dtype=int)},
            r"labels: expected integers of shape \(4,\), got int64 of sh",
        ),
        ({"images": ZEROS, "labels": np.full(4, 0.5)}, "labels: expected integers .* got float64"),
        (
            {"images": ZEROS.astype(np.uint8), "labels": np.zeros(4, int)},
            "images: expected floating-point .* got uint8",
        ),
        ({"images": ZEROS * np.nan, "labels": np.zeros(4, int)}, "images: expected finite numbers, got NaN"),
        ({"batch_size": True}, "batch_size: expected an integer of at least 1, got True"),
    ],
)
def test_bad_arguments(small, options, message):
    with pytest.raises(SpecError, match=message):
        check(small, **options)


@pytest.mark.parametrize("given", [None, {"kind": "identity"}, spec.maam])
def test_an_object_that_is_not_a_spec(given):
    with pytest.raises(SpecError, match="expected a spec or the name of a preset, got an object of type"):
        check(given)
