"""PyTorch checkpoints: files of users and of `convert`, and files that are not checkpoints."""

import itertools
import os

import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from tests.errors import error_of
from tests.weights.helpers import NODE, converts_to, refused

torch = pytest.importorskip("torch")
from maam.torch import build  # noqa: E402


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
def test_pytorch_loads_the_state_dict(weights, arrays, tmp_path, suffix):
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


@pytest.fixture
def state(arrays):
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


@pytest.fixture
def save(tmp_path):
    def save(content, name="in.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def test_checkpoints_of_training_wrappers_old_versions_and_a_gpu_are_read(state, arrays, save, monkeypatch):
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
def test_the_state_dict_of_a_wrapped_model_is_read(wrap, save):
    model = build(NODE, seed=0)
    wrapped = torch.compile(model) if wrap != "DataParallel" else model
    wrapped = torch.nn.DataParallel(wrapped) if wrap != "compile" else wrapped
    path = save(wrapped.state_dict())
    assert all(name.startswith(("module.", "_orig_mod.")) for name in torch.load(path, weights_only=True))
    assert converts_to(path, spec.draw(NODE.parameters(), 0))


class _Runs:
    """An object that runs code when it is unpickled unsafely."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize("protocol", ["new", "old"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, protocol, save):
    monkeypatch.chdir(tmp_path)
    path = save({"a": _Runs()}, _use_new_zipfile_serialization=protocol == "new")
    assert refused(path, node=NODE) == (
        f"{path}: contains a Python object, posix.mkdir, and loading it can run code; "
        "if you trust the file, load it with PyTorch and save model.state_dict() alone"
    )
    assert not (tmp_path / "was_run").exists()


def test_damaged_pytorch_files_are_refused_or_read_whole(state, tmp_path, save):
    path = save({name: state[name] for name in list(state)[:5]})
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for position in generator.integers(len(content), size=3):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        assert error_of(WeightsError, convert, path, tmp_path / "out.safetensors", NODE)  # arrays are always missing


DENSE = "x is not a dense tensor with data in the file; save a dense one"
DTYPES = "expected one of float16, bfloat16, float32, float64"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
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
    ],
)
def test_errors_for_other_content(content, expected, save):
    path = save(content, "in.pth.tar")
    assert refused(path, node=NODE).startswith(f"{path}: {expected}")
