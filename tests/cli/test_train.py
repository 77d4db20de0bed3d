"""`maam train` and `maam evaluate`; what they call has its own tests."""

import json
from pathlib import Path

import pytest

from maam.training.run_dir import RunFolder

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SHORT = ("--epochs", "1", "-o", "batch_size=128", "-o", "optimizer.lr=0.05")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one epoch."""
    from maam.training import default_recipe, train

    recipe = default_recipe("maam_digits").replaced({"epochs": 1, "batch_size": 128})
    return train("maam_digits", recipe, out=tmp_path_factory.mktemp("runs") / "run").path


def test_train(run, tmp_path):
    options = ("--epochs", "1", "--batch-size", "128", "--lr", "0.05")
    result = run("train", "maam_digits", *options, "--out", "run")
    assert result.status == 0
    assert result.out.startswith("epoch 1: test accuracy ")
    assert result.out.endswith("run: report.md, final.safetensors, best.safetensors\n")
    session = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"][0]
    assert session["recipe"]["optimizer"]["lr"] == 0.05
    assert session["command"].startswith("maam train maam_digits --epochs 1")
    assert len(RunFolder("run").log.records()) == 2
    again = run("train", "maam_digits", *SHORT, "--out", "run", "--resume")
    assert again.status == 0


def test_an_interrupt_says_how_to_go_on(run, tmp_path, monkeypatch):
    from maam.cli.train import Progress

    def interrupt(progress, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "epoch", interrupt)
        result = run("train", "maam_digits", *SHORT, "--out", "run")
    assert result.status == 130
    assert result.err == "maam: interrupted; the same command with --resume goes on from the last checkpoint\n"
    assert run("train", "maam_digits", *SHORT, "--out", "run", "--resume").status == 0


@pytest.mark.parametrize(
    ("option", "override"),
    [
        (("--epochs", "1"), "epochs=2"),
        (("--weights", "A"), "weights=B"),
        (("--seed", "0"), "seed=3"),
        (("--lr", "0.1"), "optimizer.lr=0.2"),
        (("--lr", "0.1"), "optimizer={lr=0.2}"),
    ],
)
def test_an_option_and_an_override_that_contradict(fails, option, override):
    message = fails("train", "maam_digits", *option, "-o", override)
    said = override.replace("={", ".").removesuffix("}")
    assert message == f"-o {said} contradicts {' '.join(option)}; give one of them"


def test_an_option_stays_where_an_override_gives_a_table():
    from maam.cli.options import changes
    from maam.training import default_recipe

    changed = changes({"optimizer.lr": 0.5, "epochs": 1}, ["optimizer={name='adamw'}", "epochs=1"])
    recipe = default_recipe("maam_digits").replaced(changed)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.epochs) == ("adamw", 0.5, 1)
    assert changes({"optimizer.lr": 1.0}, ["optimizer.lr=1"]) == {"optimizer.lr": 1.0}


def test_what_could_not_be_written_is_refused_first(fails, finished, monkeypatch):
    monkeypatch.setattr("maam.training.evaluate.evaluate_file", None)
    monkeypatch.setattr("maam.training.predict.predict_files", None)
    for command in (("evaluate", finished, "--data", "digits"), ("predict", finished, "a.png")):
        for target in ("/nonexistent/x.json", "."):
            assert "expected a file in a folder that exists" in fails(*command, "--json", target)
    message = fails("evaluate", finished, "--data", "digits", "--framework", "reference,torch", "--device", "cuda:9")
    assert "got 'cuda:9'" in message


def test_train_by_a_file(run, tmp_path):
    (tmp_path / "mine.toml").write_text('model = "maam_digits"\ndata = "digits"\nepochs = 1\nbatch_size = 256\n')
    assert run("train", "--recipe", "mine.toml").status == 0
    assert (tmp_path / "runs" / "maam_digits" / "report.md").exists()


def test_train_from_weights(run, finished, tmp_path):
    assert run("train", "maam_digits", *SHORT, "--weights", str(finished), "--out", "on").status == 0
    session = json.loads((tmp_path / "on" / "run.json").read_text())["sessions"][0]
    assert session["recipe"]["weights"] == str(finished)
    losses = [RunFolder(folder).log.records()[0]["losses"][0] for folder in (finished, "on")]
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no model to train: name a preset"),
        (("maam_digit",), "no preset 'maam_digit'; did you mean 'maam_digits'"),
        (("maam_digits", "-o", "model=cnn"), "-o model=cnn contradicts the preset maam_digits; name one of them"),
        (("-o", "model=nothing"), "no preset 'nothing'"),
        (("maam_digits", "--weights", "no.safetensors"), "no.safetensors: no such file"),
        (("maam_digits", "--weights", "no.pth"), "no.pth: no such file"),
        (("maam_digits", "--epochs", "0"), "recipe: epochs: input should be greater than or equal to 1, got 0"),
        (("maam_digits", "-o", "epochs=0"), "recipe: epochs: input should be greater than or equal to 1, got 0"),
        (("maam_digits", "--seed", "-1"), "recipe: seed: input should be greater than or equal to 0, got -1"),
        (("nothing", "--recipe", "digits"), "no preset 'nothing'"),
        (
            ("maam_digits", "--recipe", "digit"),
            "no recipe 'digit', and no file that ends in .toml; did you mean 'digits'?",
        ),
        (("maam_digits", "-o", "optimizer.l=3"), "recipe: optimizer: l: no such field; did you mean 'lr'?"),
        (("maam_digits", "-o", "epochs"), "override 'epochs': expected FIELD=VALUE"),
        (("maam_digits", "--framework", "jax"), "framework: expected one of torch, mindspore"),
        (("maam_digits", "--precision", "int8"), "recipe: precision: input should be"),
        (("maam_cifar10_2m3",), "data cifar10 needs root (--root DIR)"),
        (("maam_cifar10_2m3", "--root", "none"), "none"),
    ],
)
def test_train_refuses(fails, tmp_path, arguments, message):
    assert fails("train", *arguments).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_train_refuses_a_folder_with_a_run(fails, finished):
    message = f"{finished}: this folder holds a run; go on with it by resume (--resume), or choose another out (--out)"
    assert fails("train", "maam_digits", "--out", finished) == message


@pytest.mark.parametrize("framework", ["torch", "mindspore", "reference", "torch,mindspore,reference"])
def test_evaluate(run, finished, framework):
    for name in framework.split(","):
        pytest.importorskip(name) if name != "reference" else None
    result = run("evaluate", finished, "--data", "digits", "--framework", framework, "--json", "found.json")
    assert result.status == 0
    found = json.loads(Path("found.json").read_text())
    assert list(found) == framework.split(",")
    assert len({json.dumps(one["predictions"]) for one in found.values()}) == 1
    assert f"{next(iter(found.values()))['accuracy']:.2%}" in result.out
    if "," in framework:
        assert "reference: the same prediction as torch on 359 of 359 images" in result.out


def test_evaluate_a_few(run, finished):
    result = run("evaluate", finished / "best.safetensors", "--data", "digits", "--limit", "20")
    assert " 20 " in result.out


def test_evaluate_refuses(fails, finished, layer):
    last = finished / "last.safetensors"
    for arguments, message in (
        ((finished, "--data", "mnist"), "data: expected one of "),
        ((finished, "--data", "cifar10"), "data cifar10 needs root (--root DIR)"),
        (
            (finished, "--data", "digits", "--framework", "torch,jax"),
            "--framework: expected some of torch, mindspore, reference, got 'jax'",
        ),
        ((finished, "--data", "digits", "--framework", ""), "--framework: expected at least one name"),
        (("none.safetensors", "--data", "digits"), "none.safetensors: no such file"),
        ((last, "--data", "digits"), f"{last}: a training checkpoint"),
        ((layer, "--data", "digits"), "data digits: "),
    ):
        assert fails("evaluate", *arguments).startswith(message)
