"""Files of another number of classes or another architecture: the messages, and how to keep the backbone."""

import re

import pytest

from maam import spec
from maam.errors import SpecError, WeightsError
from maam.weights import read_weights
from tests.errors import error_of
from tests.weights.helpers import bits, refused

MODELS = {
    "linear": spec.preset("maam_digits", channels=4, hidden_features=6),
    "convolution": spec.preset("mafc_v3_small", width_multiplier=0.1, cifar=True, num_classes=10),
}
HEADS = {"linear": "classifier.fc2", "convolution": "classifier.conv"}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def file(name, write):
    node = MODELS[name]
    return write(node, spec.draw(node.parameters(), 3))


def test_the_head_is_found_or_there_is_none():
    assert {name: spec.head(model) for name, model in MODELS.items()} == HEADS
    for preset in ("cnn", "mlp", "rnn", "t_cnn", "maam_imagenet", "mobilenet_v1"):
        model = spec.preset(preset)
        changed = spec.with_num_classes(model, 7)
        assert changed.num_classes == 7
        assert spec.with_num_classes(changed, model.num_classes) == model
        assert changed == spec.preset(preset, num_classes=7)
    flat = spec.Model(name="flat", input_shape=(1, 2, 2), children={"flatten": spec.Flatten()})
    for node, message in (
        (spec.maam(4), "expected a classifier, a model whose output is a vector of logits (num_classes,)"),
        (spec.preset("mobilenet_v1").until("backbone"), "expected a classifier, a model whose output"),
        (flat, "flat: the last layer"),
    ):
        assert error_of(SpecError, spec.with_num_classes, node, 5).startswith(message)


def test_load_replaces_only_the_head(backend, name, file, values):
    node, before = read_weights(file)
    model = backend.load(file, num_classes=4)
    assert model.spec == spec.with_num_classes(node, 4)
    head = tuple(p for p in model.spec.parameters() if p.name.startswith(HEADS[name]))
    assert bits(values(model)) == bits(before | spec.draw(head, 0))
    assert bits(values(backend.load(file, num_classes=10))) == bits(before)
    for dtype in ("float16", "float64"):
        loaded = values(backend.load(file, backend.dtype(dtype), num_classes=4))
        assert loaded[f"{HEADS[name]}.weight"].dtype == dtype
    for seed in (1, 2):
        assert bits(values(backend.load(file, num_classes=4, seed=seed))) == bits(before | spec.draw(head, seed))
    for count in (0, -1, 2.5, "10", True):
        message = f"num_classes: expected an integer of at least 1, got {count!r}; omit it"
        assert error_of(SpecError, backend.load, file, num_classes=count).startswith(message)


def test_another_number_of_classes_is_refused_or_skipped(backend, name, file, values):
    model = backend.build(spec.with_num_classes(MODELS[name], 4))
    before = values(model)
    for strict in (True, False):
        message = error_of(WeightsError, backend.load_weights, model, file, strict)
        assert message.startswith(f"{file}: does not fit the model; wrong shape: {HEADS[name]}.weight (10, ")
        assert message.endswith(
            "the file has 10 classes and the model 4: use load(path, num_classes=4) to replace the file's last layer, "
            f"or load_weights(model, path, skip=('{HEADS[name]}',)) to keep the model's"
        )
    assert backend.load_weights(model, file, skip=(HEADS[name],)) == ((), ())
    kept = {key: array for key, array in before.items() if key.startswith(HEADS[name])}
    assert bits(values(model)) == bits(read_weights(file)[1] | kept)


def test_a_backbone_loads_into_a_model_with_another_kind_of_classifier(backend, write):
    flat = {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=1024, out_features=5)}
    children = {"backbone": MODELS["convolution"].at("backbone"), "classifier": spec.Sequential(children=flat)}
    own = spec.Model(name="own", input_shape=(3, 32, 32), children=children)
    path = write(MODELS["convolution"], spec.draw(MODELS["convolution"].parameters(), 3))
    model = backend.build(own)
    message = error_of(WeightsError, backend.load_weights, model, path)
    assert re.search(r"unexpected: classifier\.conv.*; missing: classifier\.fc", message)
    assert message.endswith(
        "; the file holds 'mafc_v3_small' and the model is 'own': load(path) builds 'mafc_v3_small'"
    )
    assert backend.load_weights(model, path, skip=("classifier",)) == ((), ())
    other = backend.build(spec.parse_json(own.to_json().replace('"function": "hard_swish"', '"function": "elu"')))
    message = error_of(WeightsError, backend.load_weights, other, path, skip=("classifier",))
    assert "saved with another spec: backbone.init_conv.act.function is " in message


def test_skipping_unknown_layers(backend, write):
    node = MODELS["convolution"]
    model, path = backend.build(node), write(node, spec.draw(node.parameters(), 3))
    for skip, message in (
        (("classifer",), "the model has no layer classifer; did you mean 'classifier'?"),
        (("x",), "the model has no layer x; its layers: backbone, classifier"),
        (("classifier.conv.weight",), "the model has no layer classifier.conv.weight; did you mean "),
        ("classifier", "expected a sequence of layer names, got 'classifier'; write ('classifier',)"),
    ):
        assert error_of(WeightsError, backend.load_weights, model, path, skip=skip).startswith(f"skip: {message}")


def test_converting_with_a_spec_of_other_classes(tmp_path):
    torch = pytest.importorskip("torch")
    node = MODELS["convolution"]
    state = {name: torch.from_numpy(array) for name, array in spec.draw(node.parameters(), 0).items()}
    torch.save({"state_dict": state}, tmp_path / "published.pth.tar")
    message = refused(tmp_path / "published.pth.tar", node=spec.with_num_classes(node, 4))
    assert message.endswith(
        "the file has 10 classes and the spec 4: pass a spec with 10 classes, such as "
        "maam.preset(NAME, num_classes=10).to_json(); to change the number afterwards use load(path, num_classes=...)"
    )
