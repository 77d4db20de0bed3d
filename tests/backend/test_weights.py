"""`build`, `load`, `save_weights` and `load_weights` of each framework, above all calls that users get wrong."""

import copy
import re

import numpy as np
import pytest

import maam
from maam import spec
from maam.errors import DataError, PresetError, SpecError, WeightsError
from maam.spec import draw
from maam.weights import read_weights, write_weights
from tests.errors import error_of

DIGITS = spec.preset("maam_digits")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    write_weights(path, DIGITS, draw(DIGITS.parameters(), 3))
    return path


@pytest.fixture
def model(backend):
    return backend.maam.build(DIGITS, seed=0)


def refusal(backend, model, path, *strict, **options):
    return error_of(WeightsError, backend.maam.load_weights, model, path, *strict, **options)


class TestLoadWeights:
    def test_a_replaced_head(self, backend, model, path):
        model.classifier.fc2 = backend.linear(64, 4)
        before = backend.read(model)
        for strict in (True, False):
            assert "classifier.fc2" in refusal(backend, model, path, strict)
        np.testing.assert_equal(backend.read(model), before)
        backend.maam.load_weights(model, path, skip=("classifier.fc2",))
        found, expected = backend.read(model), read_weights(path)[1]
        np.testing.assert_array_equal(found["reduce.conv.weight"], expected["reduce.conv.weight"])

    def test_a_replaced_activation(self, backend, model, path):
        model.reduce.act = backend.nn.GELU()
        expected = r"load_weights: layer 'reduce.act' was ReLU\(.*\) and is GELU"
        assert re.search(expected, refusal(backend, model, path))
        backend.maam.load_weights(model, path, skip=("reduce.act",))

    def test_fused_and_unfused_weights_are_not_mixed(self, backend, model, path, tmp_path):
        fused = backend.train(backend.maam.load(path), False)
        fused.reparameterize()
        backend.maam.save_weights(fused, tmp_path / "fused.safetensors")
        for strict in (True, False):
            assert "the model is fused" in refusal(backend, fused, path, strict)
            assert "the file is fused" in refusal(backend, model, tmp_path / "fused.safetensors", strict)

    def test_models_without_batch_norm_do_not_count_as_fused(self, backend, path, tmp_path):
        normed, plain = spec.maam(4), spec.maam(4, norm_layer="identity")
        for own, given in ((normed, plain), (plain, normed)):
            backend.maam.save_weights(backend.maam.build(given), tmp_path / "given.safetensors")
            message = refusal(backend, backend.maam.build(own), tmp_path / "given.safetensors")
            assert re.search(r"does not fit the model; unexpected: .*; missing: ", message)
        assert "does not fit the model; unexpected: " in refusal(backend, backend.maam.build("mlp"), path)

    def test_wrong_arguments(self, backend, model, path):
        assert "skip: expected a sequence of layer names, got None" in refusal(backend, model, path, skip=None)
        for act in (backend.maam.save_weights, backend.maam.load_weights):
            for wrong in (str(path), {"a": 1}, DIGITS):
                with pytest.raises(WeightsError, match=f"{act.__name__}: expected a .*, got an object of"):
                    act(wrong, model)

    def test_another_dropout_is_saved(self, backend, tmp_path):
        model = backend.maam.build("maam_digits", dropout=0.2)
        model.classifier.dropout.p = 0.5
        backend.maam.save_weights(model, tmp_path / "model.safetensors")


class TestBuild:
    def test_options_of_presets(self, backend):
        expected = spec.preset("maam_digits", num_classes=7)
        assert backend.maam.build("maam_digits", num_classes=7).spec == expected
        assert maam.reference.build("maam_digits", num_classes=7).spec == expected
        assert "no option 'classes'" in error_of(PresetError, backend.maam.build, "maam_digits", classes=7)
        assert re.search("num_classes: .*preset", error_of(SpecError, backend.maam.build, DIGITS, num_classes=7))

    def test_dtypes(self, backend):
        for dtype in (backend.dtype("int32"), "float16", 3):  # the last two are no dtypes of the framework
            assert "dtype: expected a floating" in error_of(SpecError, backend.maam.build, "maam_digits", dtype=dtype)

    def test_layers_by_index(self, backend, model):
        assert model.agents[0] is getattr(model.agents, "0")
        assert len(model.agents) == 3
        assert list(model)[-1] is model.classifier
        assert copy.deepcopy(model.spec) is model.spec
        changes = [(model.__getitem__, slice(2))]
        if backend.name == "mindspore":
            changes += [(model.append, model.classifier), (model.__delitem__, -1)]
        for change in changes:
            assert "the spec determines the layers; to get a part of the model: maam" in error_of(SpecError, *change)


def test_image_batches_need_a_folder(backend):
    message = error_of(DataError, backend.maam.ImageFolderBatches, "pets/train", 4)
    assert "expected a maam.data.ImageFolder, got a str; " in message
