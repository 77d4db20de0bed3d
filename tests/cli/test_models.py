"""`maam list`, `maam info` and `maam convert`."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from maam import spec
from maam.weights import read_weights

DIGITS = spec.preset("maam_digits")


def test_list_shows_every_preset(succeeds):
    result = succeeds("list")
    assert all(name in result.out for name in spec.list_presets())
    assert "2,344,141" in result.out
    assert "65,079,808" in result.out


@pytest.mark.parametrize(
    ("pattern", "count"), [("maam_*", 10), ("*cifar10*", 2), ("without_[fr]*", 2), ("?nn", 2), ("rnn", 1)]
)
def test_list_takes_wildcards(run, pattern, count):
    assert len(run("list", pattern).rows) == count == len(spec.list_presets(pattern))


def test_info_of_a_preset(succeeds):
    shown = succeeds("info", "maam_cifar10").out
    assert shown.splitlines()[-1] == "maam_cifar10: 3x32x32 to 10, 8,635,597 parameters, 244,386,304 MACs"
    assert "agents.2.conv2" in shown
    layers = succeeds("info", "maam_digits", "--depth", 1).rows
    assert [row[0] for row in layers] == list(DIGITS.children)


@pytest.mark.parametrize("name", [*spec.list_presets(), "MAFCV3"])
def test_info_shows_the_options_of_a_preset(run, name):
    shown = run("info", name, "--depth", 1).out.replace("\n", " ")
    assert all(f"{option}={default!r}" in shown for option, default in spec.preset_options(name).items())


def test_info_of_files(run, digits, document):
    expected = "".join(run("info", "maam_digits").out.splitlines(keepends=True)[:-3])  # options: two lines, and totals
    assert expected.endswith("┘\n")
    expected += "maam_digits: 1x8x8 to 10, 49,117 parameters, 962,176 MACs\n"
    text = DIGITS.to_json()
    for file in (digits, document(text), document("\ufeff" + text, "windows.json")):
        assert run("info", file).out == expected


def test_info_of_a_layer(run, succeeds, layer):
    last = run("info", layer, "--size", 8).out.splitlines()[-1]
    assert last == "sequential: 3x8x8 to 3x8x8, 204 parameters, 10,944 MACs"
    assert run("info", layer).out.splitlines()[-1].startswith("sequential: 3x32x32")
    huge = succeeds("info", layer, "--size", 10**30).out.replace("\n", "")
    assert f"3x{10**30}x{10**30}" in huge


TOTALS = {
    "linear: 4 to 2, 10 parameters, 8 MACs": spec.Linear(in_features=4, out_features=2),
    "identity: 3x32x32 to 3x32x32, 0 parameters, 0 MACs": spec.Identity(),
    "[/x] $a_ [red]: 1x8x8 to 10,": DIGITS.replace(name="[/x] $a_ [red]"),
}


@pytest.mark.parametrize("line", TOTALS)
def test_info_of_documents(succeeds, document, line):
    assert succeeds("info", document(TOTALS[line])).out.splitlines()[-1].startswith(line)


def test_json(succeeds, digits, document):
    for model in ("maam_digits", digits, document(DIGITS)):
        shown = succeeds("info", model, "--json").out
        assert spec.parse_json(shown) == DIGITS
        assert json.loads(shown)["name"] == "maam_digits"


@pytest.mark.parametrize("name", ["nope", "", " ", "maam_digit", "a\nb", "x" * 5000, "--", "[/x]"])
def test_unknown_names(fails, name):
    message = fails("info", "--", name)
    assert message.startswith("no preset ")
    assert len(message) < 300


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(fails, digits):
    digits.chmod(0)
    assert fails("info", digits) == f"{digits}: cannot be read: Permission denied"


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".ckpt"])
def test_convert_there_and_back(run, succeeds, digits, tmp_path, suffix):
    pytest.importorskip("mindspore" if suffix == ".ckpt" else "torch")
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.safetensors"
    assert run("convert", digits, there) == (0, f"{digits} -> {there}\n", "")
    succeeds("convert", there, back, "--spec", "maam_digits")
    assert back.read_bytes() == digits.read_bytes()


def test_convert_to_half_precision(succeeds, digits):
    succeeds("convert", digits, "half.safetensors", "--dtype", "float16")
    assert {array.dtype for array in read_weights("half.safetensors")[1].values()} == {np.dtype(np.float16)}


@pytest.mark.filterwarnings("default::maam.weights.sets.SeveralSetsWarning")
def test_convert_takes_one_of_several_sets(run, succeeds, digits):
    torch = pytest.importorskip("torch")
    succeeds("convert", digits, "own.pth")
    own = torch.load("own.pth", weights_only=True)
    wrapped = {f"net.{name}": tensor for name, tensor in own.items()}
    torch.save({"model": {**wrapped, "loss.weight": torch.ones(2)}, "ema": own}, "both.pth")
    command = ("convert", "both.pth", "out.safetensors", "--spec", "maam_digits")
    assert run(*command, "--key", "ema") == (0, "both.pth -> out.safetensors\n", "")
    succeeds(*command, "--key", "model", "--prefix", "net")
    torch.save({"model": own, "ema": own}, "both.pth")
    taken = "both.pth: the file has 2 sets of weights, and 'ema' is taken; to take another, pass key (--key): model"
    assert succeeds(*command).err == f"maam: warning: {taken}\n"


def test_convert_takes_a_spec_document(succeeds, layer, document):
    pytest.importorskip("torch")
    succeeds("convert", layer, "layer.pt")
    succeeds("convert", "layer.pt", "out.safetensors", "--spec", document(spec.maam(3)))
    assert read_weights("out.safetensors")[0] == spec.maam(3)


@pytest.mark.parametrize("formula", ["x * w * " + "9" * 400, "-" * 1500 + "x * w", "concat(x, w)"])
def test_info_refuses_a_file_with_an_impossible_formula_in_one_line(fails, formula):
    node = spec.Graph(children={}, formula="x * w", arrays={"w": ((1, 1, 1), 1.0)})
    metadata = {"format": "maam", "format_version": "1", "spec": node.to_json().replace("x * w", formula)}
    save_file({"w": np.ones((1, 1, 1, 1), np.float32)}, "net.safetensors", metadata)
    assert fails("info", "net.safetensors").startswith(
        "net.safetensors: the header's spec is invalid: graph: formula: "
    )
