"""`maam fuse`."""

import pytest

from maam.fusion import is_fusible
from maam.weights import read_weights


def test_fuse(run, digits, tmp_path):
    result = run("fuse", digits, tmp_path / "fused.safetensors")
    assert result.status == 0
    assert result.out.splitlines()[-1].endswith("fused.safetensors: 28 layers, 48,938 parameters")
    assert not is_fusible(read_weights(tmp_path / "fused.safetensors")[0])


def test_held_to_all_test_images(run, digits, tmp_path):
    pytest.importorskip("torch")
    result = run("fuse", digits, tmp_path / "fused.safetensors", "--data", "digits", "--frameworks", "torch")
    assert result.status == 0
    assert "torch" in result.out
    assert " 0 " in result.out


def test_refusals(fails, run, digits, tmp_path):
    out = tmp_path / "fused.safetensors"
    assert fails("fuse", "none.safetensors", out) == "none.safetensors: no such file"
    assert "no folder" in fails("fuse", digits, "none/out.safetensors")
    assert "name the data set with --data" in fails("fuse", digits, out, "--root", tmp_path)
    assert "--data: expected one of digits" in fails("fuse", digits, out, "--data", "mnist")
    message = "--frameworks: expected some of torch, mindspore, got 'reference'"
    assert fails("fuse", digits, out, "--frameworks", "reference") == message
    assert fails("fuse", digits, out, "--frameworks", "torch").startswith("--frameworks: without --data nothing is")
    run("fuse", digits, out)
    before = out.read_bytes()
    assert "the file exists; use another name, or overwrite=True" in fails("fuse", digits, out)
    assert "nothing to fuse" in fails("fuse", out, out, "--overwrite")
    assert out.read_bytes() == before
    assert run("fuse", digits, out, "--overwrite").status == 0


def test_a_difference_writes_nothing(fails, digits, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from maam.fusion import rewrite

    def wrong(spec, arrays):
        node, found = right(spec, arrays)
        found["classifier.fc2.bias"][3] += 10
        return node, found

    right = rewrite.fuse
    monkeypatch.setattr(rewrite, "fuse", wrong)
    with pytest.raises(AssertionError, match="assert"):  # the table stands on standard output
        fails("fuse", digits, tmp_path / "f.safetensors", "--data", "digits", "--frameworks", "torch")
    assert not (tmp_path / "f.safetensors").exists()
