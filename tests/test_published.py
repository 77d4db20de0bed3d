"""The MAF networks against the published code: its tables, key names and exact float64 outputs.

tests/published holds the float64 outputs of the authors' code, for weights and an input drawn from a seed.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.reference import ReferenceModel
from maam.tolerance import LOGITS, difference

FILES = sorted((Path(__file__).parent / "published").glob("*.json"))
PRESETS = {"v1": "mafc_v1", "v2": "mafc_v2", "v3_large": "mafc_v3", "v3_small": "mafc_v3_small"}
SMALL = ("v1_cifar_w025", "v2_cifar_w050", "v3_small")
OUTPUTS = {False: "eval_logits", True: "train_logits"}
CLOSE = 1e-9


def read(path):
    return json.loads(path.read_text())


def preset_of(document):
    return spec.preset(
        PRESETS[document["arch"]],
        num_classes=document["num_classes"],
        width_multiplier=float(document["width_multiplier"]),
        cifar=document["cifar"],
        image_size=document["input_size"],
    )


def draw_arrays(rng, keys):
    """Return weights by published key, drawn in the order of the keys."""
    arrays = {}
    for key, shape in keys:
        if key.endswith(("running_mean", "bias")):
            arrays[key] = 0.1 * rng.standard_normal(shape)
        elif len(shape) > 1:
            arrays[key] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif not key.endswith("num_batches_tracked"):
            arrays[key] = rng.uniform(0.5, 1.5, shape)
    return arrays


def drawn(document):
    """Return weights by published key and an input, drawn from the seed of the document."""
    rng, size = np.random.default_rng(document["seed"]), document["input_size"]
    return draw_arrays(rng, document["keys"]), rng.standard_normal((2, 3, size, size))


def torch_model(node, arrays):
    """Return the PyTorch model in float64, with weights loaded strictly under published names."""
    torch = pytest.importorskip("torch")
    from maam.torch import build

    model = build(node, dtype=torch.float64)
    counters = {name: t for name, t in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()} | counters, strict=True)
    return model


def share(actual, document, training):
    expected = np.array(document[OUTPUTS[training]])
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("training", OUTPUTS, ids=OUTPUTS.values())
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_and_outputs_of_the_reference_and_torch_in_float64(path, training):
    published = read(path)
    node, (arrays, x) = preset_of(published), drawn(published)
    assert {p.name: p.shape for p in node.parameters()} == {name: array.shape for name, array in arrays.items()}
    assert node.num_parameters == published["parameters"]
    assert share(ReferenceModel(node, arrays)(x, training=training), published, training) < CLOSE
    model = torch_model(node, arrays).train(training)
    assert sorted(model.state_dict()) == sorted(key for key, _ in published["keys"])
    found = model(next(model.parameters()).new_tensor(x)).detach().numpy()
    assert share(found, published, training) < CLOSE


@pytest.mark.slow_in("mindspore-v1", "mindspore-v2")
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_float32_is_within_the_tolerance(framework, name):
    assert len(FILES) == 7
    pytest.importorskip(framework)
    document = read(Path(__file__).parent / "published" / f"{name}.json")
    arrays, x = drawn(document)
    single = {key: array.astype(np.float32) for key, array in arrays.items()}
    runner = make_runners(preset_of(document), single, [framework])[0][0 if framework == "torch" else 1]
    found = difference(runner.forward(x.astype(np.float32)), np.array(document["eval_logits"]), LOGITS)
    assert found.used < 1, found
