"""`maam export`."""

import json

import pytest

from maam.deploy import open_exported


def test_export(run, digits, tmp_path):
    pytest.importorskip("torch")
    result = run("export", digits, "--format", "pt2", "--classes", "0,1,2,3,4,5,6,7,8,9", "--mean", "0.3")
    assert result.status == 0
    written = digits.with_suffix(".pt2")
    assert result.out.startswith(f"{digits} -> {written}: pt2, worst difference to the model ")
    metadata = open_exported(written)[1]
    assert json.loads(metadata["maam.class_names"]) == list("0123456789")
    assert json.loads(metadata["maam.preprocessing"])["mean"] == [0.3]
    assert run("export", digits, written, "--overwrite", "--no-fused").status == 0
    assert "batch_norm2d" in open_exported(written)[1]["maam.spec"]


def test_class_names_from_a_file(run, digits, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "names.txt").write_text("\n".join(f"digit {index}" for index in range(10)) + "\n")
    assert run("export", digits, tmp_path / "m.pt2", "--classes", tmp_path / "names.txt").status == 0
    assert json.loads(open_exported(tmp_path / "m.pt2")[1]["maam.class_names"])[3] == "digit 3"


def test_refusals(fails, digits, tmp_path):
    pytest.importorskip("torch")
    assert fails("export", digits).startswith(
        "--format: expected one of onnx, openvino, pt2, executorch, air, mindir, or"
    )
    assert fails("export", digits, "m.foo").startswith("m.foo: unknown suffix '.foo'")
    assert fails("export", digits, "none/m.pt2") == "none/m.pt2: the folder none does not exist; create it first"
    assert fails("export", digits, "m.pt2", "--mean", "a") == "--mean: expected numbers, comma-separated, got 'a'"
    assert fails("export", digits, "m.pt2", "--mean", "nan") == "mean: expected finite values, got nan"
    assert fails("export", digits, "m.pt2", "--std", "inf") == "std: expected finite values, got inf"
    for name in ("nofile.txt", "folder/names"):
        message = f"--classes {name}: no such file; give a file of lines, or comma-separated names"
        assert fails("export", digits, "m.pt2", "--classes", name) == message
    many = ",".join(f"class {index}" for index in range(100))  # longer than a file's name can be
    assert "expected 10 names" in fails("export", digits, "m.pt2", "--classes", many)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    assert fails("export", digits, "m.pt2", "--classes", "binary.txt").endswith("it is no UTF-8 text")
    assert fails("export", "none.safetensors", "m.pt2") == "none.safetensors: no such file"
    (tmp_path / "m.pt2").write_bytes(b"old")
    assert "m.pt2: exists" in fails("export", digits, "m.pt2")
    assert (tmp_path / "m.pt2").read_bytes() == b"old"
