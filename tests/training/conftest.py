"""Short runs on scikit-learn's digits."""

import json
import shutil
from pathlib import Path

import pytest

from maam.backend.convert import convert
from maam.errors import TrainingError
from maam.spec import draw
from maam.training import Observer, default_recipe, train
from maam.training.run_dir import RunFolder
from maam.weights import write_weights

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CHANGES = {"epochs": 2, "batch_size": 128, "ema_decay": 0.9, "clip_norm": 1.0, "label_smoothing": 0.1}
CHANGES |= {"augmentation.cutout": 2}
STEPS = {"log_steps": 1, "checkpoint_steps": 4}
FAST = {"initialization": {"whiten": "agents.0.conv1", "dirac": ["agents.*.conv2"]}, "batch_norm_momentum": 0.4}
FAST |= {"freeze": ["agents.0.*", "*.bn2.weight"], "ema_decay": None, "lookahead": {"steps": 3, "decay": 0.8}}
FAST |= {"optimizer.lr_factors": {"norm_bias": 8.0, "fusion": 0.5}, "optimizer.decay": "all", "mixup": 0.2}
FAST |= {"cutmix": 1.0, "schedule.name": "triangular", "overrides.num_agents": 2, "overrides.hidden_channels": 18}
FAST |= {"augmentation.padding_mode": "reflect", "augmentation.alternating_flip": True}
FAST |= {"augmentation.flip_probability": 0.5}
"""The parts of fast recipes, which the other runs do not use."""


@pytest.fixture(autouse=True)
def _clean_and_quick(tmp_path, monkeypatch):
    """MindSpore writes folders to the working folder; pictures of reports take longer than the training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maam.training.report.draw_pictures", lambda *arguments: None)


@pytest.fixture(scope="session", autouse=True)
def _train_in_one_thread(one_thread):
    """The bits of a run depend on the number of threads."""


@pytest.fixture
def recipe():
    return default_recipe("maam_digits").replaced(CHANGES)


@pytest.fixture
def short(recipe):
    return recipe.replaced({"epochs": 1})


@pytest.fixture
def recipe_file(tmp_path):
    """Write a recipe as TOML; return the path of the file."""

    def write(recipe):
        path, lines = tmp_path / "recipe.toml", []
        for name, value in json.loads(recipe.model_dump_json(exclude_defaults=True)).items():
            fields = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
            lines += [f"{field} = {json.dumps(one)}" for field, one in fields.items()]
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def with_optimizer(recipe):
    """Return the recipe with another optimizer, at a suitable rate, with weight decay; "fast" is `FAST`."""

    def changed(name):
        if name == "fast":
            return recipe.replaced(FAST)
        others = {"optimizer": {"name": name, "lr": 0.003, "weight_decay": 0.05}} if name != "sgd" else {}
        return recipe.replaced({"overrides.num_agents": 2, **others})  # MindSpore compiles it for every trainer

    return changed


@pytest.fixture(scope="session")
def finished(one_thread, tmp_path_factory):
    """The folder of a finished PyTorch run of one epoch, with pictures; `done` is a copy to change."""
    short = default_recipe("maam_digits").replaced({**CHANGES, "epochs": 1})
    return train("maam_digits", short, out=tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture
def done(finished, tmp_path):
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "done")))


@pytest.fixture(autouse=True)
def _installed(request):
    """Skip a test if one of its parameters is a framework that is not installed."""
    parameters = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    for name in (one for one in parameters if one in ("torch", "mindspore")):
        pytest.importorskip(name)


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    return request.param


@pytest.fixture
def drawn(tmp_path):
    """Write weights drawn from a seed; return the path of the file."""

    def write(node, name="drawn.safetensors", seed=0):
        write_weights(tmp_path / name, node, draw(node.parameters(), seed))
        return tmp_path / name

    return write


@pytest.fixture(params=["float16", "bfloat16"])
def half_and_wide(request, drawn, tmp_path):
    """Write a weights file in half precision, and a float32 file with the same numbers; return both paths."""

    def write(node):
        half, wide = tmp_path / "half.safetensors", tmp_path / "wide.safetensors"
        convert(drawn(node), half, dtype=request.param)
        convert(half, wide, dtype="float32")
        return half, wide

    return write


@pytest.fixture
def refuses(tmp_path):
    """Check that `train` raises an error before it makes the folder of the run."""

    def run(error, message, *arguments, **keywords):
        with pytest.raises(error, match=message):
            train(*arguments, out=tmp_path / "run", **keywords)
        assert not (tmp_path / "run").exists()

    return run


@pytest.fixture
def done_refuses(done):
    """Check that `train` raises an error in the folder `done`, and changes no file of it."""

    def content():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in done.path.iterdir()}

    def run(message, recipe):
        before = content()
        with pytest.raises(TrainingError, match=message):
            train("maam_digits", recipe, out=done.path, resume=True)
        assert content() == before

    return run


def losses_of(run):
    return [loss for record in run.log.records() if record["kind"] == "steps" for loss in record["losses"]]


def stop(recipe, out, *, at, **keywords):
    """Train until the log reaches a step, as if the process had ended there."""

    class Stopper(Observer):
        def steps(self, record):
            if record["step"] >= at:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        train(recipe.model, recipe, out=out, observer=Stopper(), **{**STEPS, **keywords})


@pytest.fixture
def whole_and_parts(tmp_path):
    """Train once without a stop, and once stopped at the given steps and resumed; return both runs."""

    def run(recipe, *stops, **keywords):
        whole = train(recipe.model, recipe, out=tmp_path / "whole", **STEPS, **keywords)
        for count, at in enumerate(stops):
            stop(recipe, tmp_path / "parts", resume=count > 0, at=at, **keywords)
        return whole, train(recipe.model, recipe, out=tmp_path / "parts", resume=True, **STEPS, **keywords)

    return run
