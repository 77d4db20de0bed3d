"""Models in folders of the form of the Hugging Face Hub; no test needs a network."""

import json
from types import SimpleNamespace

import pytest

torch, hub = map(pytest.importorskip, ("torch", "huggingface_hub"))

from maam.errors import ArgumentError, PresetError, WeightsError  # noqa: E402
from maam.torch import MAAM, build  # noqa: E402
from maam.torch.huggingface import FILE, HubModel  # noqa: E402
from maam.weights import read_weights  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402
from tests.errors import error_of  # noqa: E402

load = HubModel.from_pretrained


@pytest.fixture
def saved(tmp_path):
    model = HubModel(build("maam_digits", seed=0))
    model.save_pretrained(tmp_path / "digits", model_card_kwargs={"description": "Trained on nothing."})
    return model, tmp_path / "digits"


def spec_in(folder):
    """Return the spec in the configuration of a folder."""
    return json.loads((folder / "config.json").read_text())["spec"]


def test_the_folder(saved):
    model, folder = saved
    again, x = load(folder), torch.rand(2, 1, 8, 8)
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", FILE}
    node, arrays = read_weights(folder / FILE)
    assert node == model.spec == again.spec
    assert arrays.keys() == {p.name for p in node.parameters()}
    assert spec_in(folder)["name"] == "maam_digits"
    text = (folder / "README.md").read_text()
    card = hub.ModelCard(text)
    assert (card.data.library_name, card.data.license) == ("maam", "apache-2.0")
    assert f"{model.spec.num_parameters:,} parameters" in text
    assert "(N, 1, 8, 8)" in text
    assert text.rstrip().endswith("Trained on nothing.")


def test_a_fused_model_and_a_single_layer(saved, tmp_path):
    model, _ = saved
    model.eval().model.reparameterize()
    model.save_pretrained(tmp_path / "fused")
    node, _ = read_weights(tmp_path / "fused" / FILE)
    assert spec_in(tmp_path / "fused") == json.loads(node.to_json())
    assert node == model.spec
    layer = MAAM(4)
    HubModel(layer).save_pretrained(tmp_path / "layer")
    assert load(tmp_path / "layer").spec == layer.spec


def test_options_of_loading_and_saving(saved, tmp_path):
    model, folder = saved
    found = load(folder, num_classes=4, dtype=torch.float64, seed=3)
    assert found(torch.rand(2, 1, 8, 8, dtype=torch.float64)).shape == (2, 4)
    assert HubModel("maam_digits").spec.name == "maam_digits"
    new = tmp_path / "new"
    for kind, call, options, message in (
        (TypeError, load, {"strict": True}, "unexpected keyword argument"),
        (TypeError, load, {"foo": 1}, "unexpected keyword argument"),
        (WeightsError, load, {"key": "ema"}, "no set of weights 'ema' in the file"),
        (ArgumentError, model.save_pretrained, {"privat": True}, "no option 'privat'; did you mean 'private'?"),
        (ArgumentError, model.save_pretrained, {"private": True}, "private has no effect without push_to_hub=True"),
    ):
        message = message if call == load else f"save_pretrained: {message}"
        assert message in error_of(kind, call, folder if call == load else new, **options)
    assert not new.exists()


def test_sources_that_are_no_models(saved, tmp_path):
    folder = saved[1]
    for kind, call, source, message in (
        (PresetError, HubModel, "maam_digit", "no preset 'maam_digit'"),
        (WeightsError, HubModel, torch.nn.Linear(1, 1), "Linear has no"),
        (WeightsError, load, tmp_path, "model.safetensors: no such file"),
    ):
        assert message in error_of(kind, call, source)
    message = "maam/nothing: expected a folder with model.safetensors or a repository"
    assert message in error_of(WeightsError, load, "maam/nothing", local_files_only=True)
    for content in ("[]", "", "[" * 100_000, "9" * 6000):
        (folder / "config.json").write_text(content)
        assert "digits: cannot be loaded; check its config.json" in error_of(WeightsError, load, folder)


def test_a_file_of_another_origin_with_a_moving_average(saved, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    sets = {"model": saved[0].model, "ema": build("maam_digits", seed=1)}
    weights = {name: model.state_dict() for name, model in sets.items()}
    save_file({f"{name}.{key}": value for name in sets for key, value in weights[name].items()}, tmp_path / FILE)
    first = "classifier.fc1.weight"
    own = load(tmp_path, spec="maam_digits", key="model").model.state_dict()
    assert torch.equal(own[first], weights["model"][first])
    with pytest.warns(SeveralSetsWarning, match="'ema' is taken"):
        average = load(tmp_path, spec="maam_digits").model.state_dict()
    assert torch.equal(average[first], weights["ema"][first])


def test_push(saved, monkeypatch):
    sent = []
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, **options: SimpleNamespace(repo_id="me/x"))
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, **given: sent.extend(given["folder_path"].iterdir()))
    saved[0].push_to_hub("me/x")
    assert {path.name for path in sent} == {"README.md", "config.json", FILE}
