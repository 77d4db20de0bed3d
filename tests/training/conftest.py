"""Short runs on scikit-learn's digits."""

import pytest

from maam.training import Observer, default_recipe, train

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """MindSpore leaves folders where it works."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe():
    """Two epochs of eleven steps, with everything that a recipe can ask for."""
    changes = {
        "epochs": 2,
        "batch_size": 128,
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
        "augmentation.cutout": 2,
    }
    return default_recipe("maam_digits").replaced(changes)


@pytest.fixture
def with_optimizer(recipe):
    """The recipe with an optimizer of a name, at a rate that suits it, and with weight decay."""

    def changed(name):
        others = {"optimizer": {"name": name, "lr": 0.003, "weight_decay": 0.05}}
        return recipe if name == "sgd" else recipe.replaced(others)

    return changed


@pytest.fixture
def done(recipe, tmp_path):
    """A finished run of one epoch."""
    return train("maam_digits", recipe.replaced({"epochs": 1}), out=tmp_path / "done")


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    """Each framework that trains."""
    pytest.importorskip(request.param)
    return request.param


class StoppedError(Exception):
    """What stops a run in a test."""


class Stopper(Observer):
    """An observer that stops a run at a step."""

    def __init__(self, at):
        self.at = at

    def steps(self, record):
        """Stop where the time has come."""
        if record["step"] >= self.at:
            raise StoppedError


@pytest.fixture
def stop():
    """Train until the log reaches a step, as if the process had ended there."""

    def run(*arguments, at, **keywords):
        with pytest.raises(StoppedError):
            train(*arguments, observer=Stopper(at), **keywords)

    return run
