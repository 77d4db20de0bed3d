"""Calls that users of other libraries try first: they work, or the message says what to do."""

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


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "digits.safetensors", DIGITS, draw(DIGITS.parameters(), 3))
    return tmp_path / "digits.safetensors"


class TestReports:
    def report(self, images):
        pytest.importorskip("torch")
        labels = np.zeros(len(images), int)
        options = {"frameworks": "torch", "stages": "forward", "compiled": False}
        return parity.check("maam_digits", images=images, labels=labels, **options)

    def test_a_failed_check_is_false(self):
        report = self.report(np.full((8, 1, 8, 8), 3e38, np.float32))  # the sums overflow float32
        assert not report
        assert not report.passed
        assert self.report(np.ones((8, 1, 8, 8), np.float32))

    def test_a_file(self, path):
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
            ({"stages": "forwards"}, "stages: expected names from "),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(MaamError) as caught:
            parity.check("maam_digits", **options)
        assert str(caught.value).startswith(message)


class TestSpecs:
    def test_fields_have_names(self):
        with pytest.raises(ArgumentError, match=r"^conv2d: expected keyword arguments: in_channels=, out_channels="):
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

    def test_pydantics_documents(self):
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
        with pytest.raises(DeploymentError, match=r"to prune a weights file, use maam.deploy.prune_file"):
            prune(str(path), {})
        with pytest.raises(DeploymentError, match=r"channels: expected a number in \[0, 1\), got '0.5'"):
            prune(DIGITS, draw(DIGITS.parameters(), 0), channels="0.5")

    def test_no_images(self):
        model = maam.reference.build(DIGITS, seed=0)
        assert model(np.zeros((0, 1, 8, 8))).shape == (0, 10)


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


class TestTraining:
    def test_a_table_changes_the_named_settings(self):
        before = default_recipe("maam_digits")
        after = before.replaced({"optimizer": {"lr": 0.05}})
        assert after == before.replaced({"optimizer.lr": 0.05})
        assert before.replaced({"optimizer": {"name": "adam"}}).optimizer.nesterov is False

    def test_observers(self, tmp_path):
        pytest.importorskip("torch")
        pytest.importorskip("sklearn")
        accuracies = []

        class Mine(Observer):
            def epoch(self, record):
                accuracies.append(record["test_accuracy"])

        class Incomplete:
            def epoch(self, record):
                """Nothing."""

        recipe = default_recipe("maam_digits").replaced({"epochs": 1, "batch_size": 256})
        with pytest.raises(
            TrainingError, match=r"observer: an object of type Incomplete has no note\(\); derive its class from"
        ):
            train("maam_digits", recipe, out=tmp_path / "run", observer=Incomplete())
        assert not (tmp_path / "run").exists()
        train("maam_digits", recipe, out=tmp_path / "run", observer=Mine())
        assert len(accuracies) == 1
