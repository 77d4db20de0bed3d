"""Checkpoints in MindCV: what MindCV loads, what `maam.mindcv.create_model` loads, and files that do not fit."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
mindcv = pytest.importorskip("mindcv")

from mindspore.train.checkpoint_pb2 import Checkpoint  # noqa: E402

import maam  # noqa: E402
import maam.mindcv  # noqa: E402
from maam.errors import WeightsError  # noqa: E402
from maam.mindcv import create_model  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402

pytestmark = pytest.mark.usefixtures("mode")
DIGITS = {"num_classes": 10, "in_channels": 1}
RESNET = {"num_classes": 10}


def same(one, other):
    """Check that common parameters are equal, and return the names of parameters that only `one` has."""
    first, second = ({p.name: p.asnumpy() for p in cell.get_parameters()} for cell in (one, other))
    assert all(np.array_equal(first[name], second[name]) for name in first.keys() & second.keys())
    return sorted(first.keys() - second.keys())


def averages(model):
    """Return the records of a moving average, with the values of a model."""
    return [{"name": f"ema.{p.name}", "data": ms.Tensor(p.asnumpy())} for p in model.get_parameters()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("digits")
    model = mindcv.create_model("maam_digits", seed=5, **DIGITS)
    maam.mindspore.save_weights(model, tmp_path / "w.safetensors")
    maam.convert(tmp_path / "w.safetensors", tmp_path / "converted.ckpt")
    ms.save_checkpoint(model, str(tmp_path / "saved.ckpt"))
    return model, tmp_path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    network, path = mindcv.create_model("resnet18", **RESNET), str(tmp_path_factory.mktemp("resnet") / "resnet.ckpt")
    ms.save_checkpoint(network, path)
    return network, path


@pytest.mark.parametrize("file", ["converted.ckpt", "saved.ckpt", "w.safetensors"])
def test_weights_of_a_preset(digits, file):
    """MindCV loads only the checkpoints, `maam.mindcv.create_model` also the weights file."""
    model, path = digits[0], str(digits[1] / file)
    assert same(create_model("maam_digits", checkpoint_path=path, **DIGITS), model) == []
    fewer = create_model("maam_digits", 4, in_channels=1, seed=1, checkpoint_path=path)
    fresh = create_model("maam_digits", 4, in_channels=1, seed=1)
    head = {"classifier.fc2.weight", "classifier.fc2.bias"}
    for parameter, initial in zip(fewer.get_parameters(), fresh.get_parameters(), strict=True):
        expected = initial if parameter.name in head else model.parameters_dict()[parameter.name]
        np.testing.assert_array_equal(parameter.asnumpy(), expected.asnumpy())
    if file.endswith(".ckpt"):
        assert same(mindcv.create_model("maam_digits", checkpoint_path=path, **DIGITS), model) == []
    else:
        with pytest.raises(ValueError, match="the checkpoint file format must same with 'format'"):
            mindcv.create_model("maam_digits", checkpoint_path=path, **DIGITS)


def test_averaged_weights_of_a_preset(digits):
    ms.save_checkpoint(averages(digits[0]), "ema.ckpt")
    for options in ({"ema": True}, {"key": "ema"}, {}):
        assert same(create_model("maam_digits", checkpoint_path="ema.ckpt", **options, **DIGITS), digits[0]) == []


@pytest.mark.parametrize("name", ["maam_digits", "resnet18"])
def test_a_checkpoint_with_a_moving_average(name):
    """The average is taken, as by every function of maam, unless `ema` or `key` says otherwise."""
    make = partial(create_model, name, **(DIGITS if name == "maam_digits" else RESNET))
    own, average = make(), make()
    ms.save_checkpoint([*({"name": p.name, "data": p} for p in own.get_parameters()), *averages(average)], "both.ckpt")
    for options, expected in (({"ema": False}, own), ({"ema": True}, average), ({"key": "model"}, own)):
        assert same(make(checkpoint_path="both.ckpt", **options), expected) == []
    with pytest.warns(SeveralSetsWarning, match="'ema' is taken"):
        assert same(make(checkpoint_path="both.ckpt"), average) == []
    for options, message in (
        ({"key": "model", "ema": True, "checkpoint_path": "both.ckpt"}, "key and ema cannot be used together"),
        ({"prefix": "net", "auto_mapping": True, "checkpoint_path": "both.ckpt"}, "prefix and auto_mapping cannot be"),
        ({"key": "ema"}, "key: this has no effect without checkpoint_path"),
    ):
        with pytest.raises(WeightsError, match=message):
            make(**options)


def test_a_plain_checkpoint_leaves_the_new_layers(resnet):
    network = create_model("resnet18", attention="mafc", checkpoint_path=resnet[1], **RESNET)
    fresh = same(network, resnet[0])
    assert fresh
    assert all(".bn2.attention." in name for name in fresh)
    before = mindcv.create_model("resnet18", checkpoint_path=resnet[1], **RESNET)
    assert same(maam.mindcv.insert_attention(before, "mafc"), resnet[0]) == fresh


def test_another_number_of_classes(resnet):
    """With `num_classes` the last layer is new; without it a checkpoint of ten classes is an error."""
    network = create_model("resnet18", attention="mafc", checkpoint_path=resnet[1], num_classes=4)
    own, saved = network.parameters_dict(), resnet[0].parameters_dict()
    equal = {name for name in saved if own[name].shape == saved[name].shape}
    assert saved.keys() - equal == {"classifier.weight", "classifier.bias"}
    assert all(np.array_equal(own[name].asnumpy(), saved[name].asnumpy()) for name in equal)
    with pytest.raises(WeightsError, match=r"wrong shape: classifier.weight \(10, 512\) instead of \(1000, 512\)"):
        create_model("resnet18", attention="mafc", checkpoint_path=resnet[1])


def test_a_checkpoint_with_attention():
    options = {"attention": "mafc", **RESNET}
    trained = create_model("mobilenet_v2_035_96", **options)
    ms.save_checkpoint(trained, "own.ckpt")
    assert same(create_model("mobilenet_v2_035_96", checkpoint_path="own.ckpt", **options), trained) == []


def test_pretrained_weights_are_loaded_by_mindcv(resnet, monkeypatch):
    from mindcv.models import helpers

    monkeypatch.setattr(helpers.DownLoad, "download_url", lambda self, url, path: None)
    monkeypatch.setattr(helpers, "load_checkpoint", lambda path: ms.load_checkpoint(resnet[1]))
    network = create_model("resnet18", pretrained=True, attention="se", **RESNET)
    found = {p.name: p.asnumpy() for p in network.get_parameters()}
    # MindCV does not load the classifier for 10 classes.
    body = [p for p in resnet[0].get_parameters() if "classifier" not in p.name]
    assert len(body) > 60
    assert all(np.array_equal(found[p.name], p.asnumpy()) for p in body)


@pytest.mark.parametrize(
    ("name", "file", "options", "message"),
    [
        ("resnet18", "saved.ckpt", {}, "saved.ckpt: does not fit the model; missing: conv1.weight, "),
        ("resnet18", "saved.ckpt", {"attention": "se"}, "saved.ckpt: does not fit the model; missing: conv1.weight, "),
        ("cnn", "converted.ckpt", {}, "converted.ckpt: does not fit the model"),
        ("resnet18", "gone.ckpt", {}, "gone.ckpt: no such file"),
        ("maam_digits", "gone.safetensors", {}, "gone.safetensors: no such file"),
        ("resnet18", "w.safetensors", {}, r"w.safetensors: expected a MindSpore checkpoint \(.ckpt\)"),
        ("maam_digits", "broken.ckpt", DIGITS, "broken.ckpt: not a MindSpore checkpoint, damaged"),
        ("resnet18", "x.ckpt", {"pretrained": True}, "checkpoint_path and pretrained cannot be used together"),
    ],
)
def test_files_that_do_not_fit(digits, name, file, options, message):
    (digits[1] / "broken.ckpt").write_bytes(b"\xff" * 50)
    with pytest.raises(WeightsError, match=message):
        create_model(name, checkpoint_path=str(digits[1] / file), **options)


def _record(name, shape, data):
    """Return a record of a checkpoint whose data need not fit its shape."""
    found = Checkpoint.Value(tag=name)
    found.tensor.dims.extend(shape)
    found.tensor.tensor_type, found.tensor.tensor_content = "Float32", data
    return found


def test_broken_values():
    """MindSpore reads beyond a record that is too short, and loads NaN and unknown names without a word."""
    make = partial(create_model, "mobilenet_v1_025", num_classes=2)
    (name, first), *others = ((one.name, one.asnumpy()) for one in make().get_parameters())
    rest = [_record(one, array.shape, array.tobytes()) for one, array in others]
    nan = np.full(first.shape, np.nan, np.float32)
    for records, message in (
        ([_record(name, first.shape, b"1234")], "damaged or truncated"),
        ([_record(name, first.shape, nan.tobytes())], f"NaN or infinity in {name}"),
        ([_record(name, first.shape, first.tobytes()), _record("extra.weight", (1,), bytes(4))], "unexpected: extra.w"),
    ):
        Path("x.ckpt").write_bytes(Checkpoint(value=[*rest, *records]).SerializeToString())
        with pytest.raises(WeightsError, match=message):
            make(checkpoint_path="x.ckpt")
    with pytest.raises(WeightsError, match="expected the path of a weights file"):
        make(checkpoint_path=5)
