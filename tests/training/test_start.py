"""What a run starts from: presets, weights files, spec documents, other runs; whitening and frozen parameters."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import maam
from maam import spec
from maam.data import digits as digits_data
from maam.deploy import prune
from maam.errors import DataError, MaamError, RecipeError, TrainingError, WeightsError
from maam.reference import ReferenceModel
from maam.spec import Conv2d, draw
from maam.training import Optimizer, default_recipe, sources, train
from maam.training.checkpoint import read_checkpoint
from maam.training.initialization import dirac, initialize, whiten, with_momentum
from maam.training.recipe import Initialization
from maam.training.recipe_files import find_network, find_recipe
from maam.weights import read_weights, write_weights
from tests.errors import error_of
from tests.training.conftest import losses_of, stop

digits = functools.partial(spec.preset, "maam_digits")
NET = spec.preset("maam_net_s")
WIDE = spec.preset("maam_net_s", stem_channels=26)
TOO_MANY = "26 filters in 1 groups for patches of 3x2x2; expected one group and an even number of at most 24 filters"


@pytest.fixture
def frozen(short):
    """One epoch with a learning rate of almost 0, so that the weights stay as they are."""
    return short.replaced({"optimizer.lr": 1e-30, "optimizer.weight_decay": 0.0})


@pytest.fixture
def seven(drawn):
    """A weights file of the same network with seven classes, drawn from another seed."""
    return drawn(digits(num_classes=7), "seven.safetensors", seed=5)


def check_learned(run, expected):
    """Check the final weights of a run, without running statistics."""
    after = read_weights(run.final)[1]
    assert after.keys() == expected.keys()
    for name in (name for name in expected if "running" not in name):
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-6, atol=1e-12, err_msg=name)  # averages round


@pytest.mark.slow_in("mindspore")
def test_start_from_a_run(frozen, done, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": done.path}), out=tmp_path / "run", framework=framework)
    check_learned(run, read_weights(done.final)[1])
    assert losses_of(run)[0] < 0.8 * np.log(10)  # an untrained network has a loss of log(10)


@pytest.mark.slow_in("mindspore")
def test_new_last_layer_for_other_classes(frozen, seven, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": str(seven)}), out=tmp_path / "run", framework=framework)
    node = read_weights(run.final)[0]
    assert node == digits()
    drawn = draw(node.parameters(), 0)
    new = {name: array for name, array in drawn.items() if name.startswith("classifier.fc2.")}
    check_learned(run, read_weights(seven)[1] | new)
    note = f"initial weights: {seven}; the last layer, classifier.fc2, is new and drawn from the seed"
    assert run.sessions()[0]["start"] == note
    assert note in (run.path / "report.md").read_text()


def test_resumed_run_does_not_need_the_file(recipe, seven, tmp_path):
    recipe = recipe.replaced({"weights": str(seven)})
    whole = train("maam_digits", recipe, out=tmp_path / "whole")
    stop(recipe, tmp_path / "run", at=9)
    seven.unlink()
    run = train("maam_digits", recipe, out=tmp_path / "run", resume=True)
    assert run.final.read_bytes() == whole.final.read_bytes()
    assert read_checkpoint(run.last).recipe.weights == str(seven)
    first, second = run.sessions()
    assert first["start"] == second["start"] != ""
    with pytest.raises(TrainingError, match="weights: this run was started with "):
        train("maam_digits", recipe.replaced({"weights": None}), out=run.path, resume=True)


def test_weights_of_another_network(frozen, drawn, refuses):
    for node, message in [
        (digits(act_layer="gelu"), "saved with another spec: .* train the preset that the file was made from"),
        (digits(channels=8), "saved with another spec: "),
        (digits(in_channels=3), "saved with another spec: "),
        (spec.maam(3), "drawn.safetensors: maam_digits needs the weights of a classifier: "),
    ]:
        refuses(WeightsError, message, "maam_digits", frozen.replaced({"weights": str(drawn(node))}))


def test_unreadable_weights(frozen, tmp_path, refuses):
    (tmp_path / "empty_folder").mkdir()
    for name, content, message in [
        ("absent.safetensors", None, "absent.safetensors: no such file"),
        ("broken.safetensors", b"rubbish", "broken.safetensors: not a safetensors file, or truncated"),
        ("empty_folder", None, "empty_folder: this folder contains no run; expected a weights file"),
        ("model.pth", b"rubbish", "not a safetensors file, .* convert it with: maam convert SRC DST"),
    ]:
        if content:
            (tmp_path / name).write_bytes(content)
        refuses(MaamError, message, "maam_digits", frozen.replaced({"weights": name}))


@pytest.mark.slow_in("mindspore")
def test_start_from_half_precision(framework, short, half_and_wide, tmp_path):
    """A file of half precision equals a float32 file with the same numbers."""
    runs = []
    for path in half_and_wide(digits()):
        changed = short.replaced({"weights": str(path), "precision": "fp32"})
        runs.append(train("maam_digits", changed, out=tmp_path / path.stem, framework=framework))
    assert runs[0].final.read_bytes() == runs[1].final.read_bytes()


@pytest.mark.slow_in("mindspore")
def test_pruned_network_is_trained(short, done, framework, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    write_weights(pruned, *prune(*read_weights(done.final), channels=0.25))
    recipe = short.replaced({"optimizer.lr": 0.01, "ema_decay": None})
    run = train(str(pruned), recipe, out=tmp_path / "run", framework=framework)
    assert read_weights(run.final)[0] == read_weights(pruned)[0] != digits()
    assert losses_of(run)[0] < 0.9 * losses_of(done)[0]  # it is already trained
    (session,) = run.sessions()
    assert session["recipe"]["model"] == session["recipe"]["weights"] == str(pruned)
    again = train(str(pruned), recipe, out=tmp_path / "run", framework=framework, resume=True)
    assert again.final.read_bytes() == run.final.read_bytes()
    assert find_recipe(str(pruned)) == find_recipe("maam_digits") == default_recipe("maam_digits")
    assert find_network(str(pruned), {"num_classes": 7}).num_classes == 7


def test_own_spec_is_trained_from_drawn_weights(short, refuses, tmp_path):
    node = digits(channels=16).replace(name="mine")
    (tmp_path / "mine.json").write_text(node.to_json())
    message = r"no default recipe for .*mine\.json, a network called 'mine'; choose"
    refuses(RecipeError, message, tmp_path / "mine.json")
    maam.register_preset(lambda: node, "mine_of_this_test")
    for name in ("mine.json", "mine_of_this_test"):
        run = train(name, short, out=tmp_path / "runs" / name)
        assert read_weights(run.final)[0] == node
        assert run.sessions()[0]["start"] == ""


def test_paths_that_name_no_network(recipe, drawn, done, refuses):
    message = r"this is a folder, and no preset has that name .* of a run, give its final\.safetensors"
    refuses(RecipeError, message, str(done.path))
    path = drawn(digits())
    refuses(RecipeError, f"^overrides.channels: the file {path}", str(path), recipe.replaced({"overrides.channels": 8}))
    path = drawn(spec.maam(3))
    refuses(RecipeError, rf"^{path}: a single layer \(sequential\); expected a model that ends", str(path), recipe)


def images(count=300, channels=3):
    """Return smooth random images, whose pixels are correlated, float32 (count, channels, 8, 8)."""
    noise = np.random.default_rng(0).random((count, channels, 10, 10))
    return sum(noise[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)).astype(np.float32) / 9


class Batches:
    """Two batches of images, in place of a training set."""

    def epoch(self, index, start=0):
        return iter((part, np.zeros(len(part), np.int32)) for part in np.array_split(images(), 2))


def arrays_of(node, **settings):
    drawn = draw(node.parameters(), 0)
    return drawn, initialize(node, drawn, Initialization(**settings), Batches())


@pytest.fixture
def fast(with_optimizer):
    """Seven steps, which end within the second epoch, with all parts of the fast recipe."""
    return with_optimizer("fast").replaced({"max_steps": 7, "limit": 600})


class TestInitialization:
    """Whitening, identity initialization and frozen parameters, the same in both frameworks."""

    @pytest.mark.parametrize(("kernel", "stride", "filters"), [(2, 1, 24), (3, 1, 10), (4, 4, 6)])
    def test_whitened_patches_have_variance_one_and_no_correlation(self, kernel, stride, filters):
        conv = Conv2d(in_channels=3, out_channels=filters, kernel_size=kernel, stride=stride)
        weight, bias = whiten(np.array_split(images(), 4), conv)
        assert (weight.shape, weight.dtype, bias.dtype) == (conv.weight_shape, np.float32, np.float32)
        found = ReferenceModel(conv, {"weight": weight, "bias": bias})(images())
        values = found.transpose(1, 0, 2, 3).reshape(filters, -1)
        np.testing.assert_allclose(values[: filters // 2], -values[filters // 2 :], atol=1e-4)
        np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)
        covariance = np.cov(values[: filters // 2])
        variances = np.diag(covariance)
        np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-4)
        assert variances[0] == pytest.approx(1, abs=1e-3)
        assert (np.diff(variances) < 1e-6).all()  # eps shrinks weak components most
        assert variances.min() > 0.5

    @pytest.mark.parametrize(("filters", "channels", "branch"), [(8, 4, 0), (8, 4, 1), (4, 8, 1), (6, 6, 0), (5, 3, 1)])
    def test_identity_passes_channels(self, filters, channels, branch):
        drawn = np.random.default_rng(1).random((filters, channels, 3, 3)).astype(np.float32)
        conv = Conv2d(in_channels=channels, out_channels=filters, kernel_size=3, padding=1, bias=False)
        x = images(2, channels)
        found = ReferenceModel(conv, {"weight": dirac(drawn, branch=branch)})(x)
        least, most = sorted((filters, channels))
        index, shifted = np.arange(least), (branch * least + np.arange(least)) % most
        rows, columns = (shifted, index) if filters >= channels else (index, shifted)
        np.testing.assert_array_equal(found[:, rows], x[:, columns])
        kept = np.setdiff1d(np.arange(filters), rows)
        np.testing.assert_array_equal(dirac(drawn, branch=branch)[kept], drawn[kept])

    def test_identity_of_a_depthwise_convolution(self):
        weight = dirac(np.ones((4, 1, 3, 3), np.float32), groups=4)
        assert (weight[:, 0, 1, 1] == 1).all()
        assert weight.sum() == 4

    def test_branches_pass_different_channels(self):
        drawn, found = arrays_of(NET, whiten="stem.conv", dirac=("stage*.conv1", "stage2.agents.*.conv2"))
        changed = {name for name in drawn if not np.array_equal(drawn[name], found[name])}
        assert {"stem.conv.weight", "stem.conv.bias", "stage1.agents.0.conv1.weight"} < changed
        assert "stage1.agents.0.conv2.weight" not in changed
        seconds = [found[f"stage2.agents.{index}.conv2.weight"][:, :, 1, 1] for index in range(3)]
        rows = [set(np.flatnonzero(((one == 1) | (one == 0)).all(1))) for one in seconds]
        assert [len(one) for one in rows] == [40, 40, 40]
        assert set.union(*rows) == set(range(120))

    def test_unsuitable_convolutions(self):
        first = "stage1.agents.0.conv1 is not the first layer of the model, which is stem.conv; only im"
        for node, field, value, message in [
            (NET, "whiten", "steam.conv", "no convolution 'steam.conv' in the model; did you mean"),
            (NET, "whiten", "stage1.agents.0.conv1", first),
            (WIDE, "whiten", "stem.conv", f"stem.conv has {TOO_MANY}"),
            (NET, "dirac", ("stage9*",), "'stage9*' matches no convolution"),
            (NET, "dirac", ("*",), "stem.conv has kernels of 2x2; expected an odd size"),
        ]:
            found = error_of(RecipeError, arrays_of, node, **{field: value})
            assert found.startswith(f"initialization.{field}: {message}")

    def test_constant_images_cannot_be_whitened(self):
        conv = Conv2d(in_channels=3, out_channels=24, kernel_size=2)
        for value in (0, 1, 0.3):
            same = np.full((50, 3, 8, 8), value, np.float32)
            assert "the training images are constant" in error_of(RecipeError, whiten, [same, same], conv)

    def test_momentum_of_all_batch_norms(self):
        found = [node.momentum for _, node in with_momentum(NET, 0.4).walk() if isinstance(node, spec.BatchNorm2d)]
        assert set(found) == {0.4}
        assert with_momentum(NET, None) is NET
        assert "the network has no batch norm" in error_of(RecipeError, with_momentum, spec.preset("mlp"), 0.4)

    @pytest.mark.slow_in("mindspore")
    def test_run_starts_from_the_same_weights_and_keeps_frozen_ones(self, fast, framework, tmp_path):
        """The frozen branch and its running statistics do not change, and the others do."""
        run = train("maam_digits", fast, framework=framework, out=tmp_path / "run", log_steps=1)
        last = read_checkpoint(run.last)
        assert (last.state.step, last.spec.at("reduce.bn").momentum) == (7, 0.4)
        arrays, drawn = last.arrays, draw(last.spec.parameters(), 0)
        whitened = arrays["agents.0.conv1.weight"]
        np.testing.assert_array_equal(whitened[:9], -whitened[9:])
        assert np.linalg.matrix_rank(whitened[:9].reshape(9, 9)) == 9
        same = {name for name, array in arrays.items() if np.array_equal(array, drawn[name])}
        expected = {n for n in drawn if n.startswith("agents.0.") or n.endswith("bn2.weight")}
        changed = {"agents.0.conv1.weight", "agents.0.conv2.weight"}  # before the first step
        assert same == expected - changed
        moments = last.state.moments["momentum_buffer"]
        assert moments.keys() == {p.name for p in last.spec.parameters() if p.trainable and p.name not in expected}
        assert all(np.array_equal(arrays[name], last.state.average[name]) for name in expected)

    @pytest.mark.slow
    def test_frameworks_start_alike_and_stay_close(self, fast, tmp_path):
        pytest.importorskip("mindspore")
        recipe = fast.replaced({"overrides.act_layer": "silu", "precision": "fp32"})
        torch, mindspore = (
            losses_of(train("maam_digits", recipe, framework=framework, out=tmp_path / framework, log_steps=1))
            for framework in ("torch", "mindspore")
        )
        assert len(torch) == 7
        np.testing.assert_allclose(torch, mindspore, rtol=2e-4)

    @pytest.mark.parametrize("steps", [4, 8])
    def test_lookahead_keeps_the_last_steps(self, recipe, framework, steps, tmp_path):
        """A run that is shorter than the distance of two averages, or ends between two, loses no step."""
        recipe = recipe.replaced({"ema_decay": None, "lookahead.steps": 5, "limit": 200, "batch_size": 50})
        recipe = recipe.replaced(epochs=3, precision="fp32")
        finals = []
        for last in (steps, steps - 1):
            run = train("maam_digits", recipe.replaced(max_steps=last), out=tmp_path / str(last), framework=framework)
            finals.append(read_weights(run.final)[1]["classifier.fc2.weight"])
        assert not np.array_equal(*finals)
        assert not np.array_equal(finals[1], draw(digits().parameters(), 0)["classifier.fc2.weight"])

    def test_mixing_needs_two_classes(self, recipe, refuses, monkeypatch):
        one = digits_data("train").subset(range(200))
        monkeypatch.setattr(sources, "read_dataset", lambda *_: replace(one, labels=np.zeros(200, np.int32)))
        message = "mixup and cutmix need labels of at least 2 classes; the images of digits have 1"
        refuses(DataError, message, "maam_digits", recipe.replaced({"mixup": 0.2}))

    def test_factors_keep_the_decay(self):
        optimizer = Optimizer(weight_decay=0.06, decay="all", lr_factors={"norm_bias": 4.0, "fusion": 0.5})
        groups = {group.lr_factor: group for group in optimizer.groups(digits(), ["agents.0.conv*"])}
        assert sorted(groups) == [0.5, 1.0, 4.0]
        assert groups[0.5].names == ["agents.alpha"]
        assert all(name.endswith((".bn1.bias", ".bn2.bias", ".bn.bias")) for name in groups[4.0].names)
        assert all(group.weight_decay * group.lr_factor == pytest.approx(0.06) for group in groups.values())
        assert not any("agents.0.conv" in name for group in groups.values() for name in group.names)
