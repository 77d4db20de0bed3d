"""`maam list` and `maam info`."""

import json
import os

import pytest

from maam import spec

CIFAR = "maam_cifar10: 3x32x32 to 10, 8,635,597 parameters, 244,386,304 MACs"


def test_list_shows_every_preset(run):
    result = run("list")
    assert result.status == 0
    assert all(name in result.out for name in spec.list_presets())
    assert "2,344,141" in result.out
    assert "65,079,808" in result.out


@pytest.mark.parametrize(
    ("pattern", "count"), [("maam_*", 4), ("*cifar10*", 2), ("without_[fr]*", 2), ("?nn", 2), ("rnn", 1)]
)
def test_list_takes_wildcards(run, pattern, count):
    lines = run("list", pattern).out.splitlines()
    assert sum(line.startswith("│") for line in lines) == count == len(spec.list_presets(pattern))


@pytest.mark.parametrize("pattern", ["zzz", "[", "", "MAAM_DIGITS?"])
def test_list_without_a_match(fails, pattern):
    assert fails("list", pattern) == f"no preset matches {pattern!r}; `maam list` shows all"


def test_info_of_a_preset(run):
    result = run("info", "maam_cifar10")
    assert result.status == 0
    assert result.out.splitlines()[-1] == CIFAR
    assert "agents.2.conv2" in result.out


@pytest.mark.parametrize("name", [*spec.list_presets(), "MAFCV3"])
def test_info_shows_the_options_of_a_preset(run, name):
    shown = run("info", name, "--depth", 1).out.replace("\n", " ")
    assert all(f"{option}={default!r}" in shown for option, default in spec.preset_options(name).items())


def test_info_of_files(run, digits, document):
    expected = "".join(run("info", "maam_digits").out.splitlines(keepends=True)[:-3])  # options: two lines, and totals
    assert expected.endswith("┘\n")
    expected += "maam_digits: 1x8x8 to 10, 49,117 parameters, 962,176 MACs\n"
    assert run("info", digits).out == expected
    assert run("info", document(spec.preset("maam_digits"))).out == expected
    assert run("info", document("\ufeff" + spec.preset("maam_digits").to_json())).out == expected  # of Windows


def test_info_of_a_layer(run, layer):
    result = run("info", layer, "--size", 8)
    assert result.out.splitlines()[-1] == "sequential: 3x8x8 to 3x8x8, 204 parameters, 10,944 MACs"
    assert run("info", layer).out.splitlines()[-1].startswith("sequential: 3x32x32")


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (spec.Linear(in_features=4, out_features=2), "linear: 4 to 2, 10 parameters, 8 MACs"),
        (spec.Identity(), "identity: 3x32x32 to 3x32x32, 0 parameters, 0 MACs"),
        (spec.preset("maam_digits").replace(name="[/x] $a_ [red]"), "[/x] $a_ [red]: 1x8x8 to 10,"),
    ],
    ids=["vectors", "anything", "markup"],
)
def test_info_of_documents(run, document, node, line):
    result = run("info", document(node))
    assert result.status == 0
    assert result.out.splitlines()[-1].startswith(line)


def test_depth(run):
    lines = run("info", "maam_digits", "--depth", 1).out.splitlines()
    layers = [line.split()[1] for line in lines if line.startswith("│")]
    assert layers == list(spec.preset("maam_digits").children)


def test_a_huge_size_is_but_a_number(run, layer):
    result = run("info", layer, "--size", 10**30)
    assert result.status == 0
    assert f"3x{10**30}x{10**30}" in result.out.replace("\n", "")


@pytest.mark.parametrize("source", ["preset", "weights", "document"])
def test_json(run, digits, document, source):
    node = spec.preset("maam_digits")
    model = {"preset": "maam_digits", "weights": digits, "document": document(node)}[source]
    result = run("info", model, "--json")
    assert result.status == 0
    assert spec.parse_json(result.out) == node
    assert json.loads(result.out)["name"] == "maam_digits"


def test_files_that_are_no_models(fails, tmp_path, document):
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "empty.json").touch()
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    document('{"kind": "linear", "in_features": 0}', "zero.json")
    document('{"kind": "linear"', "cut.json")
    document("[" * 100_000, "deep.json")
    expected = {
        "empty.safetensors": "not a safetensors file, or cut short",
        "empty.json": "spec: not a JSON document",
        "binary.json": "cannot be read: it is not UTF-8 text",
        "folder.json": "cannot be read: Is a directory",
        "missing.json": "cannot be read: No such file or directory",
        "missing.safetensors": "no such file",
        "zero.json": "linear: in_features: ",
        "cut.json": "spec: not a JSON document",
        "deep.json": "spec: the document is nested too deeply",
        ".": "cannot be read: Is a directory",
    }
    for name, message in expected.items():
        assert fails("info", name).startswith(f"{name}: {message}")


@pytest.mark.parametrize("name", ["nope", "", " ", "maam_digit", "a\nb", "x" * 5000, "--", "[/x]"])
def test_names_of_nothing(fails, name):
    message = fails("info", "--", name)
    assert message.startswith("no preset ")
    assert len(message) < 300


def test_a_line_break_in_a_path_gives_one_line(fails):
    assert fails("info", "a\nb.json") == "a b.json: cannot be read: No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(fails, digits):
    digits.chmod(0)
    assert fails("info", digits) == f"{digits}: cannot be read: Permission denied"


def test_names_of_strangers_do_not_act_on_a_terminal(run, tmp_path):
    document = json.loads(spec.preset("maam_digits").to_json()) | {"name": "\x1b]0;owned\x07"}
    (tmp_path / "spec.json").write_text(json.dumps(document))
    result = run("info", "spec.json")
    assert result.status == 0
    assert "\x1b" not in result.out
    assert r"'\x1b]0;owned\x07': 1x8x8 to 10" in result.out
