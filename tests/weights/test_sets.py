"""Files with several sets of weights or a prefix: every function that reads a file takes the same set."""

import importlib

import numpy as np
import pytest
import safetensors.numpy

import maam
from maam.errors import WeightsError
from maam.weights import read_weights
from maam.weights.sets import Selection, SeveralSetsWarning, choose, find_sets
from tests.weights.helpers import NODE, arbitrary, bits

OWN, AVERAGE = arbitrary(NODE), arbitrary(NODE, seed=1)
BOTH = {"own": OWN, "average": AVERAGE}


def under(prefix, arrays):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


STATE = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": np.ones(2, np.float32)}}, "param_groups": [{"lr": 0.1}]}}
COUNTER = {"n_averaged": np.array(4)}
CASES = {
    "timm": ({"state_dict": OWN, "state_dict_ema": AVERAGE, **STATE}, {}, "average", "state_dict_ema"),
    "timm key": ({"state_dict": OWN, "state_dict_ema": AVERAGE}, {"key": "state_dict"}, "own", None),
    "model": ({"model": OWN, "model_ema": AVERAGE}, {}, "average", "model_ema"),
    "nested": ({"model": OWN, "ema": {"module": AVERAGE, "decay": 0.9}}, {}, "average", "ema.module"),
    "nested key": ({"model": OWN, "ema": {"module": AVERAGE}}, {"key": "model"}, "own", None),
    "model_state_dict": ({"model_state_dict": OWN, **STATE}, {}, "own", None),
    "model_ema": ({"model_ema": AVERAGE}, {}, "average", None),
    "unusual": ({"generator": OWN, "discriminator": {"fc.weight": np.ones(2, np.float32)}}, {}, "own", None),
    "AveragedModel": (under("module", AVERAGE) | COUNTER, {}, "average", None),
    "module.model": (under("module.model", OWN), {}, "own", None),
    "backbone": (under("net.backbone", OWN), {}, "own", None),
    "lightning": ({"state_dict": under("model", OWN) | {"loss.weight": np.ones(2, np.float32)}}, {"prefix": "model"},
                  "own", None),
    "names": (under("model", OWN) | under("ema", AVERAGE), {}, "average", "ema"),
    "names key": (OWN | under("ema", AVERAGE), {"key": "model"}, "own", None),
    "names prefix": (under("a", OWN) | under("b", AVERAGE), {"prefix": "b."}, "average", None),
}  # fmt: skip


def write(path, content):
    """Write a PyTorch file, or a safetensors file if the content has no dicts."""
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(content, path)
        return path
    torch = pytest.importorskip("torch")

    def tensors(value):
        if isinstance(value, dict):
            return {name: tensors(one) for name, one in value.items()}
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    torch.save(tensors(content), path)
    return path


def readers(folder):
    """Return functions from a path and options to the arrays that are read, by name."""

    def convert(path, **options):
        maam.convert(path, folder / "out.safetensors", NODE, **options)
        return read_weights(folder / "out.safetensors")[1]

    def reader(name, load):
        backend = importlib.import_module(f"maam.{name}")

        def read(path, **options):
            model = backend.load(path, spec=NODE, **options) if load else backend.build(NODE, seed=5)
            if not load:
                backend.load_weights(model, path, **options)
            backend.save_weights(model, folder / "out.safetensors")
            return read_weights(folder / "out.safetensors")[1]

        return read

    found = {f"{name}, load {load}": reader(name, load) for name in ("torch", "mindspore") for load in (True, False)}
    return {"convert": convert, **found}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_function_takes_the_same_set(tmp_path, case, suffix):
    pytest.importorskip("mindspore")
    content, options, expected, taken = CASES[case]
    flat = all(isinstance(value, np.ndarray) for value in content.values())
    if suffix == ".safetensors" and (not flat or case == "AveragedModel"):  # PyTorch's counter is an integer
        pytest.skip("a safetensors file has no dicts")
    path = write(tmp_path / f"in{suffix}", content)
    for name, read in readers(tmp_path).items():
        if taken is None:
            found = read(path, **options)
        else:
            with pytest.warns(SeveralSetsWarning, match=f"2 sets of weights, and '{taken}' is taken; .*key"):
                found = read(path, **options)
        assert bits(found) == bits(BOTH[expected]), name


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"state_dict": OWN, "state_dict_ema": AVERAGE}, {"key": "ema"},
         "key (--key): no set of weights 'ema' in the file; its sets of weights: state_dict, state_dict_ema"),
        (OWN, {"key": "ema"}, "no set of weights 'ema' in the file; it has a single set, without a key"),
        (under("model", OWN), {"prefix": "mode"},
         "prefix (--prefix): no name starts with 'mode.'; did you mean 'model'?"),
        ({"state_dict": under("net", OWN) | {"loss.weight": np.ones(2, np.float32)}}, {},
         "does not fit the model; the names below 'net' fit; pass prefix='net' (--prefix net) to leave out the others"),
    ],
)  # fmt: skip
def test_choices_that_do_not_fit(tmp_path, content, options, message):
    path = write(tmp_path / "in.pth", content)
    with pytest.raises(WeightsError) as caught:
        maam.convert(path, tmp_path / "out.safetensors", NODE, **options)
    assert message in str(caught.value)


def test_a_model_may_have_layers_with_such_names():
    names = ("ema.weight", "model.weight")
    content = {name: np.ones(1) for name in names}
    sets = find_sets(content, lambda value: True, names)
    assert list(choose("x", sets, names)) == list(names)
    assert list(choose("x", sets, names, Selection(key="model"))) == list(names)


def test_a_moving_average_of_mindcv(tmp_path):
    mindspore = pytest.importorskip("mindspore")
    cell, other = (maam.mindspore.build(NODE, seed=seed) for seed in (0, 1))
    records = [{"name": p.name, "data": p} for p in cell.get_parameters()]
    records += [{"name": f"ema.{p.name}", "data": p} for p in other.get_parameters()]
    records += [{"name": f"moments.{p.name}", "data": p} for p in other.get_parameters()]
    path = tmp_path / "in.ckpt"
    mindspore.save_checkpoint(records, str(path))
    expected = {"own": maam.spec.draw(NODE.parameters(), 0), "average": maam.spec.draw(NODE.parameters(), 1)}
    for name, read in readers(tmp_path).items():
        with pytest.warns(SeveralSetsWarning, match="'ema' is taken; .* model"):
            assert bits(read(path)) == bits(expected["average"]), name
        assert bits(read(path, key="model")) == bits(expected["own"]), name
    records = [{"name": f"net.{p.name}", "data": p} for p in cell.get_parameters()]
    records += [{"name": f"moments.net.{p.name}", "data": p} for p in cell.get_parameters()]
    mindspore.save_checkpoint(records, str(tmp_path / "net.ckpt"))
    assert bits(readers(tmp_path)["convert"](tmp_path / "net.ckpt")) == bits(expected["own"])
