"""Checkpoints of PyTorch and MindSpore: files of users and of `convert`, and files that are not checkpoints."""

import importlib
import itertools
import os

import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from tests.weights.helpers import NODE, converts_to, refused, same

torch = pytest.importorskip("torch")
from maam.torch import build  # noqa: E402

ONE = spec.Linear(in_features=1, out_features=1, bias=False)
DENSE = "x is not a dense tensor with data in the file; save a dense one"
DTYPES = "expected one of float16, bfloat16, float32, float64"


@pytest.fixture
def state(arrays):
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


@pytest.fixture
def save(tmp_path):
    def save(content, name="in.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


class TestTorch:
    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
    def test_pytorch_loads_the_state_dict(self, weights, arrays, tmp_path, suffix):
        convert(weights, tmp_path / f"model{suffix}")
        state = torch.load(tmp_path / f"model{suffix}", weights_only=True)
        if suffix == ".pth.tar":
            assert state.keys() == {"state_dict", "spec"}
            assert spec.parse_json(state["spec"]) == NODE
            state = state["state_dict"]
        assert list(state) == [p.name for p in NODE.parameters()]
        model = build(NODE)
        model.load_state_dict(state, strict=True)
        assert all(np.array_equal(model.state_dict()[name].numpy(), array) for name, array in arrays.items())

    def test_files_of_training_wrappers_old_versions_and_a_gpu_are_read(self, state, arrays, save, monkeypatch):
        parameter = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
        parameter.grad = torch.ones(2)
        optimizer.step()
        content = {"epoch": 3, "arch": "maam", "state_dict": state, "best_prec1": torch.tensor(91.5)}
        path = save(content | {"optimizer": optimizer.state_dict(), "note": None}, "model_best.pth.tar")
        assert converts_to(path, arrays)
        prefixes = itertools.cycle(["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
        mixed = {f"{next(prefixes)}{name}": tensor for name, tensor in state.items()}
        mixed |= {"module.agents.0.bn1.num_batches_tracked": torch.tensor(4)}
        assert converts_to(save(mixed, "in.pt"), arrays)
        first = next(iter(state))
        state |= {first: torch.nn.Parameter(torch.stack([state[first]] * 2)[1])}  # a parameter and a view
        assert converts_to(save(state, _use_new_zipfile_serialization=False), arrays)  # the format before PyTorch 1.6
        monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = save(state)
        assert b"cuda:0" in path.read_bytes()
        assert converts_to(path, arrays)

    @pytest.mark.parametrize("wrap", ["DataParallel", "compile", "both"])
    def test_the_state_dict_of_a_wrapped_model_is_read(self, wrap, save):
        model = build(NODE, seed=0)
        wrapped = torch.compile(model) if wrap != "DataParallel" else model
        wrapped = torch.nn.DataParallel(wrapped) if wrap != "compile" else wrapped
        path = save(wrapped.state_dict())
        assert all(name.startswith(("module.", "_orig_mod.")) for name in torch.load(path, weights_only=True))
        assert converts_to(path, spec.draw(NODE.parameters(), 0))

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_in_a_file_is_not_run(self, tmp_path, monkeypatch, zipped, save):
        class Runs:
            def __reduce__(self):
                return os.mkdir, ("was_run",)

        monkeypatch.chdir(tmp_path)
        path = save({"a": Runs()}, _use_new_zipfile_serialization=zipped)
        assert refused(path, node=NODE) == (
            f"{path}: contains a Python object, posix.mkdir, and loading it can run code; "
            "if you trust the file, load it with PyTorch and save model.state_dict() alone"
        )
        assert os.listdir(tmp_path) == [path.name]

    def test_damaged_files_are_refused_or_read_whole(self, state, save):
        path = save({name: state[name] for name in list(state)[:5]})  # other arrays are always missing
        content, generator = path.read_bytes(), np.random.default_rng(0)
        for _ in range(100):
            damaged = bytearray(content)
            for position in generator.integers(len(content), size=3):
                damaged[position] = generator.integers(256)
            path.write_bytes(damaged)
            assert refused(path, node=NODE)

    def test_errors_for_other_content(self, save):
        for content, expected in (
            (torch.nn.Linear(1, 1), "contains a Python object, torch.nn.modules.linear.Linear"),
            ({"state_dict": {}, "spec": "{}"}, "the spec in the file is invalid: "),
            ([1, 2], "contains a list; expected a state_dict"),
            (3, "contains a int; expected a state_dict"),
            ({"epoch": 3}, "contains a int under epoch; expected a state_dict"),
            ({"state_dict": {"a": None}}, "contains a NoneType under a; expected a state_dict"),
            ({1: 2}, "contains a int under 1; expected a state_dict"),
            ({"x": torch.ones(2, dtype=torch.int64)}, f"x has dtype int64; {DTYPES}"),
            ({"x": torch.ones(2).to(torch.float8_e4m3fn)}, f"x has dtype float8_e4m3fn; {DTYPES}"),
            ({"x": torch.ones(2, dtype=torch.complex64)}, f"x has dtype complex64; {DTYPES}"),
            ({"x": torch.zeros(1).expand(10**12)}, DENSE),
            ({"x": torch.ones(3).to_sparse()}, DENSE),
            ({"x": torch.empty(3, device="meta")}, DENSE),
        ):
            path = save(content, "in.pth.tar")
            assert refused(path, node=NODE).startswith(f"{path}: {expected}")


class TestMindSpore:
    @pytest.fixture(autouse=True)
    def mindspore(self, tmp_path):
        self.ms = pytest.importorskip("mindspore")
        self.backend = pytest.importorskip("maam.mindspore", exc_type=ImportError)
        self.path = tmp_path / "in.ckpt"

    def save(self, cell, **options):
        self.ms.save_checkpoint(cell, str(self.path), **options)

    def test_mindspore_loads_the_checkpoint(self, weights, arrays, tmp_path):
        convert(weights, self.path)
        cell = self.backend.build(NODE)
        loaded = self.ms.load_checkpoint(str(self.path))
        assert self.ms.load_param_into_net(cell, loaded, strict_load=True) == ([], [])
        self.backend.save_weights(cell, again := tmp_path / "again.safetensors")
        assert same(again, arrays)

    def test_checkpoints_of_training_and_of_mixed_precision_are_read(self, arrays, weights):
        nn, cell = self.ms.nn, self.backend.load(weights)
        optimizer = nn.Adam(cell.trainable_params(), learning_rate=nn.ExponentialDecayLR(0.1, 0.9, 4))
        step = nn.TrainOneStepCell(nn.WithLossCell(cell, nn.CrossEntropyLoss()), optimizer)
        self.save(step, append_dict={"epoch_num": 3, "note": "text"}, crc_check=True)
        assert converts_to(self.path, arrays)
        self.save(self.ms.amp.auto_mixed_precision(self.backend.load(weights), "O2"))
        assert converts_to(self.path, arrays)

    def test_errors_for_inconsistent_records(self):
        truncated, zero = "damaged or truncated", bytes(4)
        whole = ("Float32", [1, 1], zero)
        for records, message in (
            ({"weight": ("Float32", [1, 1], zero[:2])}, truncated),
            ({"weight": ("Float32", [1, 1], zero * 2)}, truncated),
            ({"weight": ("Float32", [10**12, 1], zero)}, truncated),
            ({"weight": ("Float32", [-1, -1], zero)}, truncated),
            ({"weight": ("Float32", [2, 2], zero * 4)}, "wrong shape: weight (2, 2) instead of (1, 1)"),
            ({"weight": ("Int32", [1, 1], zero)}, f"weight has dtype 'Int32'; {DTYPES}"),
            ({"weight": ("str", [0], zero)}, "weight has dtype 'str'"),
            ({"weight": whole, "fc.gamma": whole, "global_step": ("Int32", [], b"")}, "model; unexpected: fc.gamma"),
        ):
            file = importlib.import_module("mindspore.train.checkpoint_pb2").Checkpoint()
            for name, (kind, dims, content) in records.items():
                file.value.add(tag=name, tensor={"tensor_type": kind, "dims": dims, "tensor_content": content})
            self.path.write_bytes(file.SerializeToString())
            found = refused(self.path, node=ONE)
            assert message in found
            assert found.endswith(message) or "unexpected" not in message

    def test_a_checksum_that_does_not_fit_is_noticed(self, capfd):
        self.save(self.backend.build(ONE), crc_check=True)
        content = bytearray(self.path.read_bytes())
        self.path.chmod(0o600)
        content[-20] ^= 1  # in the weight's last byte, as 17 bytes of checksum follow
        self.path.write_bytes(content)
        message = f"{self.path}: not a MindSpore checkpoint, damaged or truncated; save it again"
        assert refused(self.path, node=ONE) == message
        assert capfd.readouterr() == ("", "")
