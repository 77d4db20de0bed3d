import importlib
import itertools
import os

import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError

NODE = spec.maam_classifier(
    3, 1, image_size=8, channels=4, hidden_features=6, num_agents=2, fusion="dynamic", depthwise=True
)
torch = pytest.importorskip("torch")


@pytest.fixture
def arrays(arbitrary):
    return arbitrary(NODE, "float32")


@pytest.fixture
def weights(write, arrays):
    return write(NODE, arrays)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_pytorch_loads_the_state_dict(weights, arrays, tmp_path, suffix):
    convert(weights, tmp_path / f"model{suffix}")
    state = torch.load(tmp_path / f"model{suffix}", weights_only=True)
    assert list(state) == [p.name for p in NODE.parameters()]
    model = importlib.import_module("maam.torch").build(NODE)
    model.load_state_dict(state, strict=True)
    assert all(np.array_equal(model.state_dict()[name].numpy(), array) for name, array in arrays.items())


def test_pytorch_loads_the_tar_with_the_spec(weights, tmp_path):
    convert(weights, tmp_path / "model.pth.tar")
    content = torch.load(tmp_path / "model.pth.tar", weights_only=True)
    assert content.keys() == {"state_dict", "spec"}
    assert spec.parse_json(content["spec"]) == NODE
    importlib.import_module("maam.torch").build(NODE).load_state_dict(content["state_dict"], strict=True)


@pytest.fixture
def state(arrays):
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _save(content, path, **options):
    torch.save(content, path, **options)
    return path


def test_a_training_checkpoint_is_read_under_its_state_dict(state, arrays, tmp_path, same):
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.grad = torch.ones(2)
    optimizer.step()
    content = {"epoch": 3, "arch": "maam", "state_dict": state, "best_prec1": torch.tensor(91.5)}
    path = _save(content | {"optimizer": optimizer.state_dict(), "note": None}, tmp_path / "model_best.pth.tar")
    convert(path, tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays)


def test_prefixes_and_batch_counters_are_taken_off_key_by_key(state, arrays, tmp_path, same):
    prefixes = itertools.cycle(["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
    mixed = {f"{next(prefixes)}{name}": tensor for name, tensor in state.items()}
    mixed |= {"module.agents.0.bn1.num_batches_tracked": torch.tensor(4)}
    convert(_save(mixed, tmp_path / "in.pt"), tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays)


@pytest.mark.parametrize("wrap", ["DataParallel", "compile", "both"])
def test_the_state_dict_of_a_wrapped_model_is_read(wrap, tmp_path, same):
    backend = importlib.import_module("maam.torch")
    model = backend.build(NODE, seed=0)
    wrapped = torch.compile(model) if wrap != "DataParallel" else model
    wrapped = torch.nn.DataParallel(wrapped) if wrap != "compile" else wrapped
    path = _save(wrapped.state_dict(), tmp_path / "in.pth")
    assert all(name.startswith(("module.", "_orig_mod.")) for name in torch.load(path, weights_only=True))
    convert(path, tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", spec.draw(NODE.parameters(), 0))


def test_tensors_saved_on_a_gpu_come_to_the_cpu(state, arrays, tmp_path, monkeypatch, same):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = _save(state, tmp_path / "in.pth")
    assert b"cuda:0" in path.read_bytes()
    convert(path, tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays)


def test_the_format_before_pytorch_1_6_and_parameters_and_views_are_read(state, arrays, tmp_path, same):
    first = next(iter(state))
    large = torch.stack([state[first], state[first]])
    state |= {first: torch.nn.Parameter(large[1])}
    path = _save(state, tmp_path / "in.pth", _use_new_zipfile_serialization=False)
    convert(path, tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays)


class _Runs:
    """An object that runs code when it is unpickled unsafely."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize("protocol", ["new", "old"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, protocol, refused):
    monkeypatch.chdir(tmp_path)
    path = _save({"a": _Runs()}, tmp_path / "in.pth", _use_new_zipfile_serialization=protocol == "new")
    message = refused(path, tmp_path / "out.safetensors", NODE)
    assert message == (
        f"{path}: holds a Python object, posix.mkdir, and loading it can run code; "
        "if you trust the file, load it with PyTorch and save model.state_dict() alone"
    )
    assert not (tmp_path / "was_run").exists()


def test_a_whole_pickled_model_is_refused(tmp_path, refused):
    path = _save(torch.nn.Linear(1, 1), tmp_path / "in.pth")
    assert "holds a Python object, torch.nn.modules.linear.Linear" in refused(path, tmp_path / "o.pt", NODE)


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar"])
@pytest.mark.parametrize("content", [b"", b"x", b"garbage" * 100, b"PK\x03\x04" * 50, b"\x80\x02}q\x00."], ids=repr)
def test_garbage_instead_of_a_pytorch_file(tmp_path, suffix, content, refused):
    (tmp_path / f"in{suffix}").write_bytes(content)
    message = refused(tmp_path / f"in{suffix}", tmp_path / "out.safetensors", NODE)
    assert message.startswith(f"{tmp_path}/in{suffix}: ")


def test_pytorch_files_cut_short_are_refused(state, tmp_path, refused):
    path = _save(state, tmp_path / "in.pth")
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 15, dtype=int):
        path.write_bytes(content[:length])
        message = refused(path, tmp_path / "out.safetensors", NODE)
        assert (
            message == f"{path}: not a PyTorch checkpoint of tensors alone, or cut short; save model.state_dict() again"
        )
    assert not (tmp_path / "out.safetensors").exists()


def test_damaged_pytorch_files_are_refused_or_read_whole(state, tmp_path):
    path = _save({name: state[name] for name in list(state)[:5]}, tmp_path / "in.pth")
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for position in generator.integers(len(content), size=3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError) as caught:  # arrays are missing even if it can be read
            convert(path, tmp_path / "out.safetensors", NODE)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "holds a list; expected a state_dict"),
        (3, "holds a int; expected a state_dict"),
        ({"epoch": 3}, "holds a int under epoch; expected a state_dict"),
        ({"state_dict": {"a": None}}, "holds a NoneType under a; expected a state_dict"),
        ({1: 2}, "holds a int under 1; expected a state_dict"),
    ],
)
def test_errors_for_files_without_a_state_dict(content, expected, tmp_path, refused):
    assert expected in refused(_save(content, tmp_path / "in.pth"), tmp_path / "out.pt", NODE)


def test_integer_and_other_tensors_are_refused(state, tmp_path, refused):
    odd = {
        "int64": torch.ones(2, dtype=torch.int64),
        "float8_e4m3fn": torch.ones(2).to(torch.float8_e4m3fn),
        "complex64": torch.ones(2, dtype=torch.complex64),
    }
    for name, tensor in odd.items():
        path = _save(state | {"x": tensor}, tmp_path / "in.pth")
        expected = f"{path}: x has dtype {name}; expected one of float16, bfloat16, float32, float64"
        assert refused(path, tmp_path / "out.pt", NODE) == expected


def test_tensors_without_values_of_their_own_are_refused(state, tmp_path, refused):
    odd = [torch.zeros(1).expand(10**12), torch.ones(3).to_sparse(), torch.empty(3, device="meta")]
    for tensor in odd:
        path = _save(state | {"x": tensor}, tmp_path / "in.pth")
        expected = f"{path}: x is not a dense tensor with data in the file; save a dense one"
        assert refused(path, tmp_path / "out.pt", NODE) == expected


def test_an_invalid_spec_in_a_file_is_refused(state, tmp_path, refused):
    path = _save({"state_dict": state, "spec": "{}"}, tmp_path / "in.pth.tar")
    assert refused(path, tmp_path / "o.pt", NODE).startswith(f"{path}: the spec in the file is invalid: ")
