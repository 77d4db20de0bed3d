"""Whitening, identity initialization and frozen parameters of a run, the same in both frameworks."""

from dataclasses import replace

import numpy as np
import pytest

from maam import spec
from maam.data import digits
from maam.errors import DataError, RecipeError, SpecError
from maam.reference import ReferenceModel
from maam.spec import Conv2d
from maam.training import Optimizer, sources, train
from maam.training.checkpoint import read_checkpoint
from maam.training.initialization import dirac, initialize, whiten, with_momentum
from maam.training.recipe import Initialization
from tests.errors import error_of

DIGITS = spec.preset("maam_digits")
NET = spec.preset("maam_net_s")


def images(count=300, channels=3):
    """Return smooth random images, whose pixels are correlated, float32 (count, channels, 8, 8)."""
    noise = np.random.default_rng(0).random((count, channels, 10, 10))
    return sum(noise[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)).astype(np.float32) / 9


class Batches:
    """Two batches of images, in place of a training set."""

    def __init__(self, channels=3):
        self.parts = np.array_split(images(channels=channels), 2)

    def epoch(self, index, start=0):
        return iter((part, np.zeros(len(part), np.int32)) for part in self.parts)


def arrays_of(node, **settings):
    drawn = spec.draw(node.parameters(), 0)
    return drawn, initialize(node, drawn, Initialization(**settings), Batches(node.in_channels_expected))


@pytest.mark.parametrize(("kernel", "stride", "filters"), [(2, 1, 24), (3, 1, 10), (4, 4, 6)])
def test_whitened_patches_have_variance_one_and_no_correlation(kernel, stride, filters):
    conv = Conv2d(in_channels=3, out_channels=filters, kernel_size=kernel, stride=stride)
    parts = np.array_split(images(), 4)
    weight, bias = whiten(parts, conv)
    assert (weight.shape, weight.dtype, bias.dtype) == (conv.weight_shape, np.float32, np.float32)
    found = ReferenceModel(conv, {"weight": weight, "bias": bias})(images())
    values = found.transpose(1, 0, 2, 3).reshape(filters, -1)
    np.testing.assert_allclose(values[: filters // 2], -values[filters // 2 :], atol=1e-4)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)
    covariance = np.cov(values[: filters // 2])
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert np.diag(covariance)[0] == pytest.approx(1, abs=1e-3)
    assert (np.diff(np.diag(covariance)) < 1e-6).all()  # eps shrinks weak components most
    assert np.diag(covariance).min() > 0.5


@pytest.mark.parametrize(("filters", "channels", "branch"), [(8, 4, 0), (8, 4, 1), (4, 8, 1), (6, 6, 0), (5, 3, 1)])
def test_identity_passes_channels(filters, channels, branch):
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


def test_identity_of_a_depthwise_convolution():
    weight = dirac(np.ones((4, 1, 3, 3), np.float32), groups=4)
    assert (weight[:, 0, 1, 1] == 1).all()
    assert weight.sum() == 4


def test_branches_pass_different_channels():
    drawn, found = arrays_of(NET, whiten="stem.conv", dirac=("stage*.conv1", "stage2.agents.*.conv2"))
    changed = {name for name in drawn if not np.array_equal(drawn[name], found[name])}
    assert {"stem.conv.weight", "stem.conv.bias", "stage1.agents.0.conv1.weight"} < changed
    assert "stage1.agents.0.conv2.weight" not in changed
    seconds = [found[f"stage2.agents.{index}.conv2.weight"][:, :, 1, 1] for index in range(3)]
    rows = [set(np.flatnonzero(((one == 1) | (one == 0)).all(1))) for one in seconds]
    assert [len(one) for one in rows] == [40, 40, 40]
    assert set.union(*rows) == set(range(120))


WIDE = spec.preset("maam_net_s", stem_channels=26)
TOO_MANY = "26 filters in 1 groups for patches of 3x2x2; expected one group and an even number of at most 24 filters"


@pytest.mark.parametrize(
    ("node", "field", "value", "message"),
    [
        (NET, "whiten", "steam.conv", "no convolution 'steam.conv' in the model; did you mean"),
        (NET, "whiten", "stage1.agents.0.conv1", "stage1.agents.0.conv1 is not the first layer of the model; only im"),
        (WIDE, "whiten", "stem.conv", f"stem.conv has {TOO_MANY}"),
        (NET, "dirac", ("stage9*",), "'stage9*' matches no convolution"),
        (NET, "dirac", ("*",), "stem.conv has kernels of 2x2; expected an odd size"),
    ],
)
def test_unsuitable_convolutions(node, field, value, message):
    assert error_of(RecipeError, arrays_of, node, **{field: value}).startswith(f"initialization.{field}: {message}")


def test_momentum_of_all_batch_norms():
    found = [node.momentum for _, node in with_momentum(NET, 0.4).walk() if isinstance(node, spec.BatchNorm2d)]
    assert set(found) == {0.4}
    assert with_momentum(NET, None) is NET


@pytest.fixture
def fast(with_optimizer):
    """Seven steps, which end within the second epoch, with all parts of the fast recipe."""
    return with_optimizer("fast").replaced({"max_steps": 7, "limit": 600})


@pytest.mark.slow_in("mindspore")
def test_run_starts_from_the_same_weights_and_keeps_frozen_ones(fast, framework, tmp_path):
    """The frozen branch and its running statistics do not change, and the others do."""
    run = train("maam_digits", fast, framework=framework, out=tmp_path / "run", log_steps=1)
    last = read_checkpoint(run.last)
    assert (last.state.step, last.spec.at("reduce.bn").momentum) == (7, 0.4)
    arrays, drawn = last.arrays, spec.draw(last.spec.parameters(), 0)
    whitened = arrays["agents.0.conv1.weight"]
    np.testing.assert_array_equal(whitened[:9], -whitened[9:])
    assert np.linalg.matrix_rank(whitened[:9].reshape(9, 9)) == 9
    same = {name for name, array in arrays.items() if np.array_equal(array, drawn[name])}
    expected = {n for n in drawn if n.startswith("agents.0.") or n.endswith("bn2.weight")}
    changed = {"agents.0.conv1.weight", "agents.0.conv2.weight"}  # before the first step
    assert same == expected - changed
    moments = last.state.moments["momentum_buffer"]
    assert moments.keys() == {p.name for p in last.spec.parameters() if p.trainable and p.name not in expected}
    assert all(np.array_equal(array, last.state.average[name]) for name, array in arrays.items() if name in expected)


@pytest.mark.slow
def test_frameworks_start_alike_and_stay_close(fast, tmp_path):
    pytest.importorskip("mindspore")
    recipe = fast.replaced({"overrides.act_layer": "silu", "precision": "fp32"})
    found = {}
    for framework in ("torch", "mindspore"):
        run = train("maam_digits", recipe, framework=framework, out=tmp_path / framework, log_steps=1)
        found[framework] = [loss for r in run.log.records() if r["kind"] == "steps" for loss in r["losses"]]
    assert len(found["torch"]) == 7
    np.testing.assert_allclose(found["torch"], found["mindspore"], rtol=2e-4)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("stem.*", "freeze: 'stem.*' matches no parameter of the model; its first parameters: agents.0.conv1"),
        ("agents.0.conv1.wieght", "matches no parameter of the model; did you mean 'agents.0.conv1.weight'?"),
        ("*", r"freeze: \* matches all parameters; expected some to train"),
    ],
)
def test_patterns_that_do_not_fit(recipe, refuses, pattern, message):
    refuses(SpecError, message, "maam_digits", recipe.replaced({"freeze": [pattern]}))


def test_mixing_needs_two_classes(recipe, refuses, monkeypatch):
    one = digits("train").subset(range(200))
    monkeypatch.setattr(sources, "_whole_dataset", lambda *_: replace(one, labels=np.zeros(200, np.int32)))
    message = "mixup and cutmix need labels of at least 2 classes; the images of digits have 1"
    refuses(DataError, message, "maam_digits", recipe.replaced({"mixup": 0.2}))


def test_factors_keep_the_decay():
    optimizer = Optimizer(weight_decay=0.06, decay="all", lr_factors={"norm_bias": 4.0, "fusion": 0.5})
    groups = {group.lr_factor: group for group in optimizer.groups(DIGITS, ["agents.0.conv*"])}
    assert sorted(groups) == [0.5, 1.0, 4.0]
    assert groups[0.5].names == ["agents.alpha"]
    assert all(name.endswith((".bn1.bias", ".bn2.bias", ".bn.bias")) for name in groups[4.0].names)
    assert all(group.weight_decay * group.lr_factor == pytest.approx(0.06) for group in groups.values())
    assert not any("agents.0.conv" in name for group in groups.values() for name in group.names)
