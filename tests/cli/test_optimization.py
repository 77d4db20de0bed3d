"""`maam optimize`."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_what_is_measured(run, digits):
    result = run("optimize", digits, "--engine", "torch", "--precision", "fp32,int4", "--batch", "2")
    assert result.status == 0
    rows = [line.replace("│", " ").split() for line in result.out.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [["eager", "fp32"], ["torch", "fp32"]]
    assert float(rows[0][2]) == 1
    assert float(rows[1][2]) > 0
    assert "not measured: precision 'int4': PyTorch does not support it on cpu" in result.out


def test_refusals(fails, digits):
    assert fails("optimize", "none.safetensors") == "none.safetensors: no such file"
    assert fails("optimize", digits, "--batch", "0").startswith("--batch: expected sizes from 1 to 4096")
    for option in ("--engine", "--precision"):
        assert fails("optimize", digits, option, ",") == f"{option}: expected at least one name"
    message = fails("optimize", digits, "--engine", "tpu", "--batch", "1")
    assert message == "engine: expected one of torch, onnxruntime, openvino, got 'tpu'"
