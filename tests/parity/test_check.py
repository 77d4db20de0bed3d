"""The whole parity run, on small models of every kind."""

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.parity import STAGES, Verdict, check, make_runners
from maam.parity.report import draw_depth
from maam.parity.stages.lattice import STAGE as LATTICE
from maam.tolerance import NONE, Difference, worse
from maam.weights import write_weights

pytest.importorskip("torch")
pytest.importorskip("mindspore")

ZEROS = np.zeros((4, 1, 8, 8), np.float32)
RUNNERS = ["torch", "torch compiled", "mindspore graph", "mindspore pynative"]


@pytest.fixture(scope="module")
def full():
    """Every stage and every runner, on a small MAAM."""
    return check(spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16), steps=20)


def test_everything_agrees(full):
    assert full.complete, full.to_markdown()
    assert full.first_difference == ""


def test_every_runner_goes_through_every_stage(full):
    stages = {runner: {row.stage for row in full.rows if row.runner == runner} for runner in RUNNERS}
    alone = {"layers, eval", "layers, train", "running statistics", "float16 output", "bfloat16 output"}
    assert stages["mindspore graph"] == stages["mindspore pynative"] == stages["torch"]
    assert stages["torch"] - stages["torch compiled"] == alone
    assert len(stages["torch compiled"]) == 12


def test_nothing_is_left_out_silently(full):
    verdicts = {row.verdict for row in full.rows if row.stage != "bfloat16 output"}
    assert verdicts == {Verdict.PASS}
    kernels = [row for row in full.rows if row.verdict is Verdict.NOT_AVAILABLE]
    assert {row.stage for row in kernels} == {"bfloat16 output"}
    assert all(row.runner.startswith("mindspore") and "no kernel for" in row.note for row in kernels)


def test_lattice_is_exact(full):
    rows = [row for row in full.rows if row.stage == LATTICE]
    assert len(rows) == 4
    assert all(row.absolute == 0 and "6 cases" in row.note for row in rows)


def test_picture(full, tmp_path):
    draw_depth(full, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "node",
    [
        spec.maam(4, fusion="dynamic", scales=(1, 2, 3), act_layer="gelu"),
        spec.maam(4, 6, depthwise=True, pool=(1, 2), act_layer="hard_swish"),
        spec.preset("t_cnn", base="maam_digits", channels=8),
        spec.preset("without_agent_attention", base="maam_digits", channels=8),
        spec.preset("rnn", image_size=6),
    ],
    ids=["dynamic", "depthwise", "t_cnn", "without_agent_attention", "rnn"],
)
def test_other_architectures(node):
    stages = ["exchange", "lattice", "layers", "forward", "gradients", "steps"]
    report = check(node, compiled=False, stages=stages[: -1 if node.at("").nodes.get("rnn") else None])
    assert report.complete, report.to_markdown()


def test_lattice_says_where_integers_prove_nothing():
    """Twelve residual blocks let sums grow beyond what float32 holds."""
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
    report = check(deep, frameworks=["torch"], compiled=False, stages=["lattice"])
    assert {row.verdict for row in report.rows} == {Verdict.NOT_APPLICABLE}
    assert "float32 does not hold the sums of small integers" in report.rows[0].note


def test_lattice_says_what_is_not_exact():
    report = check(spec.maam(4, act_layer="gelu"), compiled=False, stages=["lattice"])
    assert {row.verdict for row in report.rows} == {Verdict.NOT_APPLICABLE}
    assert "act1 is not exact" in report.rows[0].note


def test_dropout_is_compared_where_it_can_be():
    node = spec.preset("maam_digits", channels=8, dropout=0.5)
    report = check(node, compiled=False, stages=["layers", "forward", "gradients", "steps"])
    assert not report.failures, report.to_markdown()
    left_out = {row.stage for row in report.rows if row.verdict is Verdict.NOT_RUN}
    assert {"logits, train", "running statistics, whole model"} < left_out
    assert not left_out & {"layers, eval", "layers, train", "running statistics", "logits, eval"}
    assert {row.verdict for row in report.rows if row.stage.startswith("gradients")} == {Verdict.NOT_RUN}
    assert all("dropout left out" in row.note for row in report.rows if row.stage == "layers, train")


@pytest.mark.parametrize("mode", ["torch", "mindspore graph", "mindspore pynative"])
def test_faults_beside_dropout_are_found(faults, mode):
    node = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8, dropout=0.5)
    arrays = spec.draw(node.parameters(), 0)
    runner = next(r for r in make_runners(node, arrays, compiled=False)[0] if r.name == mode)
    faults.wrong_momentum(runner, "reduce.bn")
    report = check(node, arrays, runners=[runner], stages=["layers"])
    assert report.first_difference.startswith("reduce.bn"), report.to_markdown()


def test_dropout_alone_is_not_run():
    report = check(spec.Dropout(p=0.5), compiled=False, frameworks=["torch"], stages=["layers"])
    verdicts = {row.stage: row.verdict for row in report.rows}
    assert verdicts == {"layers, eval": Verdict.PASS, "layers, train": Verdict.NOT_RUN}


def test_models_given_keep_weights_and_mode(small):
    for runner in make_runners(small, spec.draw(small.parameters(), 123), compiled=False)[0]:
        before = runner.read_arrays()
        runner.model.eval() if runner.name == "torch" else runner.model.set_train(False)
        report = check(small, runners=[runner], stages=["layers", "forward"])
        assert report.complete, report.to_markdown()
        assert all((array == before[name]).all() for name, array in runner.read_arrays().items())
        assert not runner.model.training


def test_a_frozen_batch_norm_stays_so(small, runner):
    norm = runner.model.agents[0].bn1
    runner.model.train() if runner.name == "torch" else runner.model.set_train()
    norm.eval() if runner.name == "torch" else norm.set_train(False)
    check(small, runners=[runner], stages=["forward"])
    assert runner.model.training
    assert not norm.training


def test_the_weights_of_a_file_go_before_those_of_models(small, arrays, tmp_path):
    write_weights(tmp_path / "a.safetensors", small, arrays)
    runners = make_runners(small, spec.draw(small.parameters(), 1), ["torch"], compiled=False)[0]
    seen = []
    runners[0].write_arrays = lambda given, write=runners[0].write_arrays: seen.append(given) or write(given)
    check(tmp_path / "a.safetensors", runners=runners, stages=["forward"])
    assert all((seen[0][name] == array.astype(np.float32)).all() for name, array in arrays.items())


def test_a_single_class_has_no_loss():
    node = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8, num_classes=1)
    report = check(node, frameworks=["torch"], compiled=False, stages=["free run"], steps=2)
    assert [row.note for row in report.rows] == ["the loss is 0 from the start"]


def test_lattice_counts_fractions():
    layers = {"stem": spec.Conv2d(in_channels=3, out_channels=4, kernel_size=3, padding=1)}
    layers |= {f"maam{index}": spec.maam(4, scales=(1, 2, 4)) for index in range(3)}
    layers |= {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=1024, out_features=10)}
    node = spec.Model(name="pooling", input_shape=(3, 16, 16), children=layers)
    report = check(node, frameworks=["torch"], compiled=False, stages=["lattice"], batch_size=2)
    assert "with 15 binary digits behind the point" in report.rows[0].note
    assert report.rows[0].verdict is Verdict.NOT_APPLICABLE


def test_nan_is_past_every_bound():
    nan = Difference(float("nan"), float("nan"), float("nan"))
    assert worse(NONE, nan).used == worse(nan, NONE).used == float("inf")


def test_real_images_and_trained_looking_weights(arrays, small):
    from maam import data

    digits = data.digits("test")
    report = check(
        small, arrays, images=data.to_float(digits.images), labels=digits.labels, compiled=False, stages=["forward"]
    )
    assert report.complete, report.to_markdown()


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 7, 5)])
@pytest.mark.parametrize("constant", [True, False])
def test_degenerate_inputs(shape, constant):
    generator = np.random.default_rng(0)
    images = np.full((4, *shape), 0.5, np.float32) if constant else generator.random((4, *shape)).astype(np.float32)
    report = check(
        spec.maam(4),
        images=images,
        labels=np.zeros(4, np.int32),
        compiled=False,
        stages=["layers", "forward"],
    )
    assert report.complete, report.to_markdown()
    for runner in make_runners(spec.maam(4), spec.draw(spec.maam(4).parameters(), 0), compiled=False)[0]:
        found = runner.gradients(images, np.ones((4, *shape), np.float32))
        assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


def test_batch_of_one(small, arrays):
    report = check(small, arrays, batch_size=1, compiled=False, stages=["forward"])
    assert report.passed, report.to_markdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ["nothing"]}, "no stage 'nothing'"),
        ({"frameworks": ["jax"]}, "expected one of torch, mindspore, got 'jax'"),
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
        ({"images": ZEROS * np.nan, "labels": np.zeros(4, int)}, "images: they hold NaN or infinity"),
        ({"batch_size": True}, "batch_size: expected an integer of at least 1, got True"),
    ],
)
def test_bad_arguments(small, options, message):
    with pytest.raises(SpecError, match=message):
        check(small, **options)


@pytest.mark.parametrize("given", [None, {"kind": "identity"}, spec.maam])
def test_what_is_no_spec(given):
    with pytest.raises(SpecError, match="expected a spec or the name of a preset, got an object of type"):
        check(given)


def test_stages_are_those_of_the_table():
    assert list(STAGES)[:3] == ["exchange", "lattice", "layers"]
