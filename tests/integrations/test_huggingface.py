"""Models in folders of the form of the Hugging Face Hub; no test needs a network."""

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
hub = pytest.importorskip("huggingface_hub")

from maam.errors import ArgumentError, PresetError, WeightsError  # noqa: E402
from maam.torch import MAAM, build  # noqa: E402
from maam.torch.huggingface import FILE, HubModel  # noqa: E402
from maam.weights import read_weights  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402


@pytest.fixture
def saved(tmp_path):
    model = HubModel(build("maam_digits", seed=0))
    model.save_pretrained(tmp_path / "digits", model_card_kwargs={"description": "Trained on nothing."})
    return model, tmp_path / "digits"


def test_the_folder(saved):
    model, folder = saved
    again = HubModel.from_pretrained(folder)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", FILE]
    node, arrays = read_weights(folder / FILE)
    assert node == model.spec == again.spec
    assert arrays.keys() == {p.name for p in node.parameters()}
    assert json.loads((folder / "config.json").read_text())["spec"]["name"] == "maam_digits"
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
    assert json.loads((tmp_path / "fused" / "config.json").read_text())["spec"] == json.loads(node.to_json())
    assert node == model.spec
    layer = MAAM(4)
    HubModel(layer).save_pretrained(tmp_path / "layer")
    assert HubModel.from_pretrained(tmp_path / "layer").spec == layer.spec


def test_names_and_errors(tmp_path):
    assert HubModel("maam_digits").spec.name == "maam_digits"
    with pytest.raises(PresetError, match="no preset 'maam_digit'"):
        HubModel("maam_digit")
    with pytest.raises(WeightsError, match="Linear has no"):
        HubModel(torch.nn.Linear(1, 1))
    with pytest.raises(WeightsError, match=r"model.safetensors: no such file"):
        HubModel.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"maam/nothing: expected a folder with model.safetensors or a repository"):
        HubModel.from_pretrained("maam/nothing", local_files_only=True)


def test_options_of_loading_and_saving(saved, tmp_path):
    model, folder = saved
    found = HubModel.from_pretrained(folder, num_classes=4, dtype=torch.float64, seed=3)
    assert found(torch.rand(2, 1, 8, 8, dtype=torch.float64)).shape == (2, 4)
    for unknown in ({"strict": True}, {"foo": 1}):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            HubModel.from_pretrained(folder, **unknown)
    with pytest.raises(WeightsError, match="no set of weights 'ema' in the file"):
        HubModel.from_pretrained(folder, key="ema")
    for options, message in (
        ({"privat": True}, "save_pretrained: no option 'privat'; did you mean 'private'?"),
        ({"private": True}, "save_pretrained: private has no effect without push_to_hub=True"),
    ):
        with pytest.raises(ArgumentError) as caught:
            model.save_pretrained(tmp_path / "new", **options)
        assert message in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_file_of_another_origin_with_a_moving_average(saved, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, _ = saved
    other = HubModel(build("maam_digits", seed=1)).model.state_dict()
    arrays = {f"model.{name}": value for name, value in model.model.state_dict().items()}
    safetensors.save_file({**arrays, **{f"ema.{name}": value for name, value in other.items()}}, tmp_path / FILE)
    own = HubModel.from_pretrained(tmp_path, spec="maam_digits", key="model")
    assert torch.equal(own.model.classifier.fc1.weight, model.model.classifier.fc1.weight)
    with pytest.warns(SeveralSetsWarning, match="'ema' is taken"):
        average = HubModel.from_pretrained(tmp_path, spec="maam_digits")
    assert torch.equal(average.model.classifier.fc1.weight, other["classifier.fc1.weight"])


def test_push(saved, monkeypatch):
    sent = []
    made = SimpleNamespace(repo_id="me/x")
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, **options: made)
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, **given: sent.extend(given["folder_path"].iterdir()))
    saved[0].push_to_hub("me/x")
    assert {path.name for path in sent} == {"README.md", "config.json", FILE}


@pytest.mark.parametrize("content", ["[]", "", "[" * 100_000, "9" * 6000])
def test_a_broken_configuration(content, tmp_path):
    HubModel(build("maam_digits", seed=0)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"model: cannot be loaded; check its config.json"):
        HubModel.from_pretrained(tmp_path / "model")
