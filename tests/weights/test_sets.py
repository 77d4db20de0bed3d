"""Files with several sets of weights or a prefix: every function that reads a file takes the same set."""

from contextlib import nullcontext

import numpy as np
import pytest
import safetensors.numpy

import maam
from maam.errors import WeightsError
from maam.weights.sets import Selection, SeveralSetsWarning, choose, find_sets
from tests.errors import error_of
from tests.weights.helpers import NODE, arbitrary, backend_named, same

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


def check_read(path, expected, taken=None, **options):
    """Check the arrays that every function reads, and its warning if it takes one of several sets."""
    out = path.parent / "out.safetensors"

    def load(backend):
        backend.save_weights(backend.load(path, spec=NODE, **options), out)

    def load_weights(backend):
        backend.load_weights(model := backend.build(NODE, seed=5), path, **options)
        backend.save_weights(model, out)

    def convert(_):
        maam.convert(path, out, NODE, **options)

    cases = [(read, backend_named(name)) for name in ("torch", "mindspore") for read in (load, load_weights)]
    for read, backend in [(convert, None), *cases]:
        message = f"2 sets of weights, and '{taken}' is taken; .*key"
        with pytest.warns(SeveralSetsWarning, match=message) if taken else nullcontext():
            read(backend)
        assert same(out, expected)


FLAT = [name for name, (content, *_) in CASES.items() if not any(isinstance(one, dict) for one in content.values())]
FLAT.remove("AveragedModel")  # PyTorch's counter is an integer


@pytest.mark.parametrize(
    ("suffix", "case"), [*((".pth", name) for name in CASES), *((".safetensors", name) for name in FLAT)]
)
def test_every_function_takes_the_same_set(tmp_path, case, suffix):
    pytest.importorskip("mindspore")
    content, options, expected, taken = CASES[case]
    check_read(write(tmp_path / f"in{suffix}", content), BOTH[expected], taken, **options)


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
    assert message in error_of(WeightsError, maam.convert, path, tmp_path / "out.safetensors", NODE, **options)


def test_a_model_may_have_layers_with_such_names():
    names = ("ema.weight", "model.weight")
    sets = find_sets({name: np.ones(1) for name in names}, lambda value: True, names)
    for selection in ((), (Selection(key="model"),)):
        assert list(choose("x", sets, names, *selection)) == list(names)


def test_a_moving_average_of_mindcv(tmp_path):
    mindspore, path = pytest.importorskip("mindspore"), tmp_path / "in.ckpt"
    sets = [(maam.mindspore.build(NODE, seed=seed), maam.spec.draw(NODE.parameters(), seed)) for seed in (0, 1)]
    (cell, own), (other, average) = sets

    def save(**cells):
        records = [(f"{prefix}{p.name}", p) for prefix, one in cells.items() for p in one.get_parameters()]
        mindspore.save_checkpoint([{"name": name, "data": p} for name, p in records], str(path))

    save(**{"": cell, "ema.": other, "moments.": other})
    check_read(path, average, "ema")
    check_read(path, own, key="model")
    save(**{"net.": cell, "moments.net.": cell})
    check_read(path, own)
