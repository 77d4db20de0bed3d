"""Files of another number of classes or another architecture: what is said, and how to keep the backbone."""

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError, WeightsError
from maam.weights import read_weights

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
    """Return a weights file of a model with ten classes."""
    node = MODELS[name]
    return write(node, spec.draw(node.parameters(), 3))


def saved(backend, model, path):
    backend.save_weights(model, path)
    return read_weights(path)


def test_the_head_is_found():
    assert {name: spec.head(model) for name, model in MODELS.items()} == HEADS
    for preset in ("cnn", "mlp", "rnn", "t_cnn", "maam_imagenet", "mobilenet_v1"):
        model = spec.preset(preset)
        changed = spec.with_num_classes(model, 7)
        assert changed.num_classes == 7
        assert spec.with_num_classes(changed, model.num_classes) == model
        assert changed == spec.preset(preset, num_classes=7)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (spec.maam(4), "expected a classifier, a model whose output is a vector of logits (num_classes,)"),
        (spec.preset("mobilenet_v1").until("backbone"), "expected a classifier, a model whose output"),
        (spec.Model(name="flat", input_shape=(1, 2, 2), children={"flatten": spec.Flatten()}), "flat: the last layer"),
    ],
)
def test_models_without_a_head(node, message):
    with pytest.raises(SpecError) as caught:
        spec.with_num_classes(node, 5)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("count", [0, -1, 2.5, "10", True])
def test_invalid_numbers_of_classes(backend, file, count):
    with pytest.raises(SpecError, match=f"^num_classes: expected an integer of at least 1, got {count!r}; omit it"):
        backend.load(file, num_classes=count)


def test_load_replaces_only_the_head(backend, name, file, tmp_path):
    node, before = read_weights(file)
    changed, after = saved(backend, backend.load(file, num_classes=4), tmp_path / "new.safetensors")
    assert changed == spec.with_num_classes(node, 4)
    head = HEADS[name]
    fresh = {p.name: p for p in changed.parameters() if p.name.startswith(head)}
    assert {key: array.shape for key, array in after.items() if key in fresh} == {k: p.shape for k, p in fresh.items()}
    drawn = spec.draw(tuple(fresh.values()), 0)
    for key, array in after.items():
        np.testing.assert_array_equal(array, drawn[key] if key in fresh else before[key])


def test_the_seed_draws_the_head(backend, name, file, tmp_path):
    weight = f"{HEADS[name]}.weight"
    found = [
        saved(backend, backend.load(file, num_classes=4, seed=seed), tmp_path / f"{index}.safetensors")[1][weight]
        for index, seed in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_same_number_of_classes_changes_nothing(backend, file, tmp_path, same):
    backend.save_weights(backend.load(file, num_classes=10), tmp_path / "same.safetensors")
    assert same(tmp_path / "same.safetensors", read_weights(file)[1])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_dtype_of_the_head(backend, name, file, dtype, tmp_path):
    model = backend.load(file, backend.dtype(dtype), num_classes=4)
    assert saved(backend, model, tmp_path / "new.safetensors")[1][f"{HEADS[name]}.weight"].dtype == dtype


def test_the_error_for_another_number_of_classes_names_both_solutions(backend, name, file):
    model = backend.build(spec.with_num_classes(MODELS[name], 4))
    for strict in (True, False):
        with pytest.raises(WeightsError) as caught:
            backend.load_weights(model, file, strict)
        assert str(caught.value).startswith(f"{file}: does not fit the model; wrong shape: {HEADS[name]}.weight (10, ")
        assert str(caught.value).endswith(
            "the file has 10 classes and the model 4: use load(path, num_classes=4) to replace the file's last layer, "
            f"or load_weights(model, path, skip=('{HEADS[name]}',)) to keep the model's"
        )


def test_skipped_layers_do_not_change(backend, name, file, tmp_path):
    model = backend.build(spec.with_num_classes(MODELS[name], 4))
    before = saved(backend, model, tmp_path / "before.safetensors")[1]
    assert backend.load_weights(model, file, skip=(HEADS[name],)) == ((), ())
    after = saved(backend, model, tmp_path / "after.safetensors")[1]
    for key, array in read_weights(file)[1].items():
        np.testing.assert_array_equal(after[key], before[key] if key.startswith(HEADS[name]) else array)


def test_skipping_a_part_of_another_architecture(backend, write, tmp_path):
    """A backbone loads into a model with another kind of classifier."""
    backbone = MODELS["convolution"].at("backbone")
    own = spec.Model(
        name="own",
        input_shape=(3, 32, 32),
        children={
            "backbone": backbone,
            "classifier": spec.Sequential(
                children={"flatten": spec.Flatten(), "fc": spec.Linear(in_features=1024, out_features=5)}
            ),
        },
    )
    path = write(MODELS["convolution"], spec.draw(MODELS["convolution"].parameters(), 3))
    model = backend.build(own)
    with pytest.raises(WeightsError, match=r"unexpected: classifier\.conv.*; missing: classifier\.fc") as caught:
        backend.load_weights(model, path)
    assert str(caught.value).endswith(
        "; the file holds 'mafc_v3_small' and the model is 'own': load(path) builds 'mafc_v3_small'"
    )
    assert backend.load_weights(model, path, skip=("classifier",)) == ((), ())
    other = backend.build(spec.parse_json(own.to_json().replace('"function": "hard_swish"', '"function": "elu"')))
    with pytest.raises(WeightsError, match=r"saved with another spec: backbone\.init_conv\.act\.function is "):
        backend.load_weights(other, path, skip=("classifier",))


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (("classifer",), "skip: the model has no layer classifer; did you mean 'classifier'?"),
        (("x",), "skip: the model has no layer x; its layers: backbone, classifier"),
        (("classifier.conv.weight",), "skip: the model has no layer classifier.conv.weight; did you mean "),
        ("classifier", "skip: expected a sequence of layer names, got 'classifier'; write ('classifier',)"),
    ],
)
def test_skipping_unknown_layers(backend, write, skip, message):
    node = MODELS["convolution"]
    path = write(node, spec.draw(node.parameters(), 3))
    with pytest.raises(WeightsError) as caught:
        backend.load_weights(backend.build(node), path, skip=skip)
    assert str(caught.value).startswith(message)


def test_converting_with_a_spec_of_other_classes(refused, tmp_path):
    torch = pytest.importorskip("torch")
    node = MODELS["convolution"]
    state = {name: torch.from_numpy(array) for name, array in spec.draw(node.parameters(), 0).items()}
    torch.save({"state_dict": state}, tmp_path / "published.pth.tar")
    message = refused(tmp_path / "published.pth.tar", tmp_path / "out.safetensors", spec.with_num_classes(node, 4))
    assert message.endswith(
        "the file has 10 classes and the spec 4: pass a spec of 10 classes, such as "
        "maam.preset(NAME, num_classes=10).to_json(); load(num_classes=) can then replace the head"
    )
