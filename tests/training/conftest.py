"""Short runs on scikit-learn's digits."""

import shutil
from pathlib import Path

import pytest

from maam.training import Observer, default_recipe, train
from maam.training.run_dir import RunFolder

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CHANGES = {
    "epochs": 2,
    "batch_size": 128,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "augmentation.cutout": 2,
}
"""All parts of a recipe, in two epochs of eleven steps."""


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """MindSpore writes folders to the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The order of sums, and so the bits, depends on the number of threads."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Leave out the pictures of reports, which take longer than the training; the fixture `pictures` keeps them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("maam.training.report.draw_pictures", lambda *arguments: None)


@pytest.fixture
def pictures():
    """Reports with pictures."""


@pytest.fixture
def recipe():
    """Two epochs of eleven steps."""
    return default_recipe("maam_digits").replaced(CHANGES)


@pytest.fixture
def short(recipe):
    """One epoch of eleven steps."""
    return recipe.replaced({"epochs": 1})


@pytest.fixture
def with_optimizer(recipe):
    """Return the recipe with another optimizer, at a suitable rate, and with weight decay."""

    def changed(name):
        others = {"optimizer": {"name": name, "lr": 0.003, "weight_decay": 0.05}}
        return recipe if name == "sgd" else recipe.replaced(others)

    return changed


@pytest.fixture(scope="session")
def finished(_one_thread, tmp_path_factory):
    """The folder of a finished PyTorch run of one epoch, with pictures; `done` is a copy to change."""
    short = default_recipe("maam_digits").replaced({**CHANGES, "epochs": 1})
    return train("maam_digits", short, out=tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture
def done(finished, tmp_path):
    """A finished PyTorch run of one epoch."""
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "done")))


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    """Each framework that trains."""
    pytest.importorskip(request.param)
    return request.param


class StoppedError(Exception):
    """The error that stops a run in a test."""


class Stopper(Observer):
    """An observer that stops a run at a step."""

    def __init__(self, at):
        self.at = at

    def steps(self, record):
        """Stop at the step, or after it."""
        if record["step"] >= self.at:
            raise StoppedError


@pytest.fixture
def stop():
    """Train until the log reaches a step, as if the process had ended there."""

    def run(*arguments, at, **keywords):
        with pytest.raises(StoppedError):
            train(*arguments, observer=Stopper(at), **keywords)

    return run
