"""What users of other libraries type first: it works, or the message says what to do."""

import copy
from importlib import import_module

import numpy as np
import pytest

import maam
from maam import parity, spec
from maam.data import Augmentation, BatchLoader, ImageDataset
from maam.deploy import prune
from maam.errors import (
    ArgumentError,
    DataError,
    DeploymentError,
    MaamError,
    PresetError,
    SpecError,
    TrainingError,
    WeightsError,
)
from maam.spec import draw
from maam.training import Observer, default_recipe, train
from maam.weights import write_weights

DIGITS = spec.preset("maam_digits")
IMAGES = np.zeros((8, 1, 8, 8), np.float32)


@pytest.fixture(params=["torch", "mindspore"])
def room(request):
    pytest.importorskip(request.param)
    return import_module(f"maam.{request.param}")


@pytest.fixture
def nn(room):
    return import_module(f"{room.__name__.removeprefix('maam.')}.nn")


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "digits.safetensors", DIGITS, draw(DIGITS.parameters(), 3))
    return tmp_path / "digits.safetensors"


def linear(nn, *arguments):
    return (nn.Linear if hasattr(nn, "Linear") else nn.Dense)(*arguments)


def arrays_of(room, model):
    return import_module(f"{room.__name__}.arrays").read_arrays(model)


class TestReports:
    def report(self, images):
        pytest.importorskip("torch")
        labels = np.zeros(len(images), int)
        options = {"frameworks": "torch", "stages": "forward", "compiled": False}
        return parity.check("maam_digits", images=images, labels=labels, **options)

    def test_a_failed_proof_is_false_however_it_is_asked(self):
        report = self.report(np.full((8, 1, 8, 8), 3e38, np.float32))  # the sums outgrow float32
        assert not report
        assert not report.passed
        assert self.report(np.ones((8, 1, 8, 8), np.float32))

    def test_a_file_is_taken(self, path):
        pytest.importorskip("torch")
        assert parity.check(str(path), frameworks=["torch"], stages=["exchange"], compiled=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"arrays": {"a": np.zeros(3)}}, "arrays: does not fit the model; unexpected: "),
            ({"images": np.zeros((8, 3, 8, 8), np.float32), "labels": np.zeros(8, int)}, "expected an input (N, 1, 8"),
            (
                {"images": np.zeros((0, 1, 8, 8), np.float32), "labels": np.zeros(0, int)},
                "images: expected at least one",
            ),
            (
                {"images": np.zeros((8, 1, 8, 8), np.float32), "labels": np.full(8, 99)},
                "labels: expected 0..9, got 99..99",
            ),
            ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
            ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
            ({"stages": "forwards"}, "stages: no stage 'forwards'"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(MaamError) as caught:
            parity.check("maam_digits", **options)
        assert str(caught.value).startswith(message)


class TestWeights:
    def test_a_replaced_head(self, room, nn, path):
        model = room.build("maam_digits", seed=0)
        model.classifier.fc2 = linear(nn, 64, 4)
        before = arrays_of(room, model)
        for strict in (True, False):
            with pytest.raises(WeightsError, match=r"classifier.fc2"):
                room.load_weights(model, path, strict)
        for name, array in arrays_of(room, model).items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)
        room.load_weights(model, path, skip=("classifier.fc2",))
        np.testing.assert_array_equal(arrays_of(room, model)["agents.alpha"], room_arrays(path)["agents.alpha"])

    def test_a_replaced_activation(self, room, nn, path):
        model = room.build("maam_digits", seed=0)
        model.reduce.act = nn.GELU()
        with pytest.raises(WeightsError, match=r"load_weights: layer 'reduce.act' was ReLU\(.*\) and is GELU"):
            room.load_weights(model, path)
        room.load_weights(model, path, skip=("reduce.act",))

    def test_fused_and_not(self, room, path, tmp_path):
        model = room.load(path)
        (model.eval() if hasattr(model, "eval") else model.set_train(False)).reparameterize()
        for strict in (True, False):
            with pytest.raises(WeightsError, match="the model is fused for deployment, and the file is not"):
                room.load_weights(model, path, strict)
        room.save_weights(model, tmp_path / "fused.safetensors")
        for strict in (True, False):
            with pytest.raises(WeightsError, match="the file is fused for deployment, and the model is not"):
                room.load_weights(room.build("maam_digits"), tmp_path / "fused.safetensors", strict)

    def test_a_layer_of_no_batch_norm_is_not_taken_for_a_fused_one(self, room, tmp_path):
        normed, plain = spec.maam(4), spec.maam(4, norm_layer="identity")
        for own, given in ((normed, plain), (plain, normed)):
            room.save_weights(room.build(given), tmp_path / "given.safetensors")
            with pytest.raises(WeightsError, match=r"does not fit the model; unexpected: .*; missing: "):
                room.load_weights(room.build(own), tmp_path / "given.safetensors")

    def test_layers_to_skip_are_a_list_of_names(self, room, path):
        for skip, hint in (("reduce", r"got 'reduce'; write \('reduce',\)"), (None, "got None")):
            with pytest.raises(WeightsError, match=f"skip: expected a sequence of layer names, {hint}"):
                room.load_weights(room.build("maam_digits"), path, skip=skip)

    def test_another_network_without_batch_norm_is_not_taken_for_a_fused_one(self, room, path):
        with pytest.raises(WeightsError, match="does not fit the model; unexpected: "):
            room.load_weights(room.build("mlp"), path)

    def test_something_else(self, room, path):
        model = room.build("maam_digits")
        for act in (room.save_weights, room.load_weights):
            for wrong in (str(path), {"a": 1}, DIGITS):
                with pytest.raises(
                    WeightsError, match=f"{act.__name__}: expected a .* and then a path, got an object of"
                ):
                    act(wrong, model)

    def test_dropout_may_be_another(self, room, tmp_path):
        model = room.build("maam_digits", dropout=0.2)
        room.load_weights(model, saved(room, model, tmp_path))
        model.classifier.dropout.p = 0.5
        room.save_weights(model, tmp_path / "again.safetensors")


def room_arrays(path):
    from maam.weights import read_weights

    return read_weights(path)[1]


def saved(room, model, folder):
    room.save_weights(model, folder / "one.safetensors")
    return folder / "one.safetensors"


class TestModels:
    def test_options_of_presets(self, room):
        assert room.build("maam_digits", num_classes=7).spec == spec.preset("maam_digits", num_classes=7)
        with pytest.raises(PresetError, match="no option 'classes'"):
            room.build("maam_digits", classes=7)
        with pytest.raises(SpecError, match="num_classes: options are only allowed with the name of a preset"):
            room.build(DIGITS, num_classes=7)

    def test_options_of_presets_in_numpy(self):
        assert maam.reference.build("maam_digits", num_classes=7).spec == spec.preset("maam_digits", num_classes=7)

    @pytest.mark.parametrize("dtype", ["float16", "int32", 3])
    def test_dtypes(self, room, dtype):
        framework = import_module(room.__name__.removeprefix("maam."))
        given = getattr(framework, dtype) if dtype == "int32" else dtype
        with pytest.raises(SpecError, match="dtype: expected a floating"):
            room.build("maam_digits", dtype=given)

    def test_places_and_slices(self, room):
        model = room.build("maam_digits")
        assert model.agents[0] is getattr(model.agents, "0")
        assert len(model.agents) == 3
        assert list(model)[-1] is model.classifier
        with pytest.raises(SpecError, match="the layers are those of the spec: a part is"):
            model[:2]
        assert copy.deepcopy(model.spec) is model.spec

    def test_more_layers(self):
        room = pytest.importorskip("maam.mindspore")
        model = room.build("maam_digits")
        with pytest.raises(SpecError, match="the layers are those of the spec"):
            model.append(model.classifier)
        with pytest.raises(SpecError, match="the layers are those of the spec"):
            del model[-1]

    def test_arguments_of_layers(self, room):
        for make, hint in (
            (lambda: room.SE(8, reduction=4), "reduction is 1 / rd_ratio here; its arguments: channels, "),
            (lambda: room.MAAM(8, stride=2), r"stride is pool=\(1, stride\) here; its arguments: in_channels"),
        ):
            with pytest.raises(ArgumentError, match=hint):
                make()

    def test_other_tensors(self):
        torch = pytest.importorskip("torch")
        room = pytest.importorskip("maam.mindspore")
        with pytest.raises(MaamError, match="expected a mindspore"):
            room.build("maam_digits")(torch.rand(2, 1, 8, 8))


class TestSpecs:
    def test_fields_have_names(self):
        with pytest.raises(ArgumentError, match=r"^conv2d: expected keyword arguments: in_channels=, out_channels=, kernel_size="):
            spec.Conv2d(3, 16, 3)

    def test_bools_of_numpy(self):
        assert spec.maam(4, reduce=np.True_) == spec.maam(4, reduce=True)

    @pytest.mark.parametrize("channels", ["64", 64.5, -1, 0])
    def test_widths(self, channels):
        with pytest.raises(SpecError, match="out_channels: expected an integer of at least 1, got"):
            spec.patch_widths(16, channels)

    def test_a_batch_norm_behind_the_last_layer_leaves_no_head(self):
        children = {
            "conv": spec.Conv2d(in_channels=3, out_channels=5, kernel_size=1),
            "bn": spec.BatchNorm2d(num_features=5),
            "pool": spec.GlobalPool(),
            "flatten": spec.Flatten(),
        }
        model = spec.Model(name="normed", input_shape=(3, 8, 8), children=children)
        with pytest.raises(SpecError, match="normed: the last layer with parameters does not compute the logits"):
            spec.with_num_classes(model, 7)

    def test_a_dtype_by_name(self, path):
        from maam import reference

        assert set(reference.load(path, "float64").dtypes.values()) == {np.dtype("float64")}
        with pytest.raises(WeightsError, match="dtype: expected a NumPy dtype or its name, got 'float33'"):
            reference.load(path, "float33")

    def test_pydantics_documents_are_ours(self):
        assert spec.parse_json(DIGITS.model_dump_json()) == DIGITS == spec.parse_document(DIGITS.model_dump())

    def test_documents_and_parameters(self):
        with pytest.raises(SpecError, match="expected JSON text, got dict; for plain data use parse_document"):
            spec.parse_json(DIGITS.to_document())
        with pytest.raises(SpecError, match=r"draw\(spec.parameters\(\), seed\)"):
            draw(DIGITS, 0)

    def test_presets_of_users(self):
        def needs(num_classes):
            return DIGITS

        def anything(**options):
            return DIGITS

        for factory, message in (
            (DIGITS, r"register_preset\(lambda: spec, name\)"),
            (needs, "num_classes: expected a default value"),
            (anything, "expected only named arguments with defaults"),
        ):
            with pytest.raises(PresetError, match=message):
                maam.register_preset(factory, "never")

        @maam.register_preset(name="of_test_misuse")
        def first():
            return DIGITS

        with pytest.raises(PresetError, match="already exists; use another name or overwrite=True"):
            maam.register_preset(first, "of_test_misuse")
        maam.register_preset(lambda: spec.preset("cnn"), "of_test_misuse", overwrite=True)
        assert maam.preset("of_test_misuse") == spec.preset("cnn")

    def test_pruning(self, path):
        with pytest.raises(DeploymentError, match=r"maam.deploy.prune_file takes the path"):
            prune(str(path), {})
        with pytest.raises(DeploymentError, match=r"channels: expected a number in \[0, 1\), got '0.5'"):
            prune(DIGITS, draw(DIGITS.parameters(), 0), channels="0.5")

    def test_no_images(self):
        referee = maam.reference.build(DIGITS, seed=0)
        assert referee(np.zeros((0, 1, 8, 8))).shape == (0, 10)


class TestData:
    images = np.zeros((6, 3, 32, 32), np.uint8)

    def test_labels_and_names(self):
        found = ImageDataset(self.images, np.array([0, 3, 1, 1, 2, 0]))
        assert found.labels.dtype == np.int32
        assert found.class_names == ("class 0", "class 1", "class 2", "class 3")
        assert ImageDataset(self.images, found.labels, list("abcd")).class_names == tuple("abcd")
        for names in ("abcd", {0: "a"}):
            with pytest.raises(DataError, match="expected a sequence of names"):
                ImageDataset(self.images, found.labels, names)

    def test_channels_last(self):
        with pytest.raises(DataError, match=r"looks like \(N, H, W, C\)"):
            ImageDataset(self.images.transpose(0, 2, 3, 1), np.zeros(6, np.int32), ("a",))

    def test_loaders(self):
        dataset = ImageDataset(self.images, np.zeros(6, np.int32), ("a",))
        for arguments, message in (
            (((self.images, [0] * 6), 2), "dataset: expected a maam.data.ImageDataset, got a tuple; for image files"),
            ((dataset, 2, True), "augmentation: expected a maam.data.Augmentation, got a bool"),
        ):
            with pytest.raises(DataError, match=message):
                BatchLoader(*arguments[:2], augmentation=arguments[2] if len(arguments) > 2 else Augmentation())
        with pytest.raises(DataError, match=r"iterate over .epoch\(0\)"):
            list(BatchLoader(dataset, 2))

    def test_folders(self, room):
        with pytest.raises(DataError, match=r"expected a maam.data.ImageFolder, got a str; maam.data.imagefolder"):
            room.ImageFolderBatches("pets/train", 4)


class TestTraining:
    def test_a_table_changes_what_it_names(self):
        before = default_recipe("maam_digits")
        after = before.replaced({"optimizer": {"lr": 0.05}})
        assert after == before.replaced({"optimizer.lr": 0.05})
        assert before.replaced({"optimizer": {"name": "adam"}}).optimizer.nesterov is False

    def test_observers(self, tmp_path):
        pytest.importorskip("torch")
        pytest.importorskip("sklearn")
        told = []

        class Mine(Observer):
            def epoch(self, record):
                told.append(record["test_accuracy"])

        class ModelAdapter:
            def epoch(self, record):
                """Nothing."""

        recipe = default_recipe("maam_digits").replaced({"epochs": 1, "batch_size": 256})
        with pytest.raises(TrainingError, match=r"observer: an object of type ModelAdapter has no note\(\); let it inherit"):
            train("maam_digits", recipe, out=tmp_path / "run", observer=ModelAdapter())
        assert not (tmp_path / "run").exists()
        train("maam_digits", recipe, out=tmp_path / "run", observer=Mine())
        assert len(told) == 1
