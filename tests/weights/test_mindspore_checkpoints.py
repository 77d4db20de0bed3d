"""MindSpore checkpoints: files of users and of `convert`, and files that are not checkpoints."""

import importlib

import pytest

from maam import spec
from maam.backend.convert import convert
from maam.weights import read_weights
from tests.weights.helpers import NODE, bits, converts_to, refused

mindspore = pytest.importorskip("mindspore")
backend = pytest.importorskip("maam.mindspore", exc_type=ImportError)

ONE = spec.Linear(in_features=1, out_features=1, bias=False)


def test_mindspore_loads_the_checkpoint(weights, arrays, tmp_path):
    convert(weights, tmp_path / "model.ckpt")
    cell = backend.build(NODE)
    loaded = mindspore.load_checkpoint(str(tmp_path / "model.ckpt"))
    assert mindspore.load_param_into_net(cell, loaded, strict_load=True) == ([], [])
    backend.save_weights(cell, tmp_path / "again.safetensors")
    assert bits(read_weights(tmp_path / "again.safetensors")[1]) == bits(arrays)


def _checkpoint(path, **entries):
    """Write a MindSpore checkpoint from raw records: name to (type, dims, content)."""
    whole = importlib.import_module("mindspore.train.checkpoint_pb2").Checkpoint()
    for name, (kind, dims, content) in entries.items():
        record = whole.value.add()
        record.tag = name
        record.tensor.tensor_type = kind
        record.tensor.dims.extend(dims)
        record.tensor.tensor_content = content
    path.write_bytes(whole.SerializeToString())
    return path


def test_checkpoints_of_training_and_of_mixed_precision_are_read(arrays, weights, tmp_path):
    cell = backend.load(weights)
    loss = mindspore.nn.WithLossCell(cell, mindspore.nn.CrossEntropyLoss())
    optimizer = mindspore.nn.Adam(cell.trainable_params(), learning_rate=mindspore.nn.ExponentialDecayLR(0.1, 0.9, 4))
    append = {"epoch_num": 3, "note": "text"}
    step = mindspore.nn.TrainOneStepCell(loss, optimizer)
    mindspore.save_checkpoint(step, str(tmp_path / "in.ckpt"), append_dict=append, crc_check=True)
    assert converts_to(tmp_path / "in.ckpt", arrays)
    mixed = mindspore.amp.auto_mixed_precision(backend.load(weights), "O2")
    mindspore.save_checkpoint(mixed, str(tmp_path / "mixed.ckpt"))
    assert converts_to(tmp_path / "mixed.ckpt", arrays)


TRUNCATED, ZERO = "damaged or truncated", b"\0" * 4
ONES = ("Float32", [1, 1], ZERO)
RECORDS = [
    ({"weight": ("Float32", [1, 1], ZERO[:2])}, TRUNCATED),
    ({"weight": ("Float32", [1, 1], ZERO * 2)}, TRUNCATED),
    ({"weight": ("Float32", [10**12, 1], ZERO)}, TRUNCATED),
    ({"weight": ("Float32", [-1, -1], ZERO)}, TRUNCATED),
    ({"weight": ("Float32", [2, 2], ZERO * 4)}, "wrong shape: weight (2, 2) instead of (1, 1)"),
    ({"weight": ("Int32", [1, 1], ZERO)}, "weight has dtype 'Int32'; expected one of float16, bfloat16, float32, flo"),
    ({"weight": ("str", [0], ZERO)}, "weight has dtype 'str'"),
    ({"weight": ONES, "fc.gamma": ONES, "global_step": ("Int32", [], b"")}, "model; unexpected: fc.gamma"),
]


@pytest.mark.parametrize(("records", "message"), RECORDS)
def test_errors_for_inconsistent_records(tmp_path, records, message):
    found = refused(_checkpoint(tmp_path / "in.ckpt", **records), node=ONE)
    assert message in found
    assert found.endswith(message) or "unexpected" not in message


def test_a_checksum_that_does_not_fit_is_noticed(tmp_path, capfd):
    path = tmp_path / "in.ckpt"
    mindspore.save_checkpoint(backend.build(ONE), str(path), crc_check=True)
    content = bytearray(path.read_bytes())
    path.chmod(0o600)
    content[-20] ^= 1  # in the weight's last byte, as 17 bytes of checksum follow
    path.write_bytes(content)
    message = f"{path}: not a MindSpore checkpoint, damaged or truncated; save it again"
    assert refused(path, node=ONE) == message
    assert capfd.readouterr() == ("", "")
