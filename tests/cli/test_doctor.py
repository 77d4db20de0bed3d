"""`maam doctor`: its checks, and its remedies for combinations that are known to fail."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from maam.backend.registry import backend_names, is_installed, load_backend, trainable_names
from maam.cli import doctor
from maam.cli.doctor import Status
from maam.tolerance import Bound

HEALTHY = {"numpy": "2.4.6", "mindspore": "2.10.0", "torch": "2.15.0", "executorch": "1.5.1", "onnx": "1.20"}
OLDER = {"numpy": "1.26.4", "mindspore": "2.8.0", "executorch": None, "onnx": None}
"""The changes to the other pair of versions."""


def problems(features=(), **changes):
    installed = {**HEALTHY, **changes}
    found = doctor.known_problems({k: v for k, v in installed.items() if v is not None}, list(features))
    return {finding.subject: finding for finding in found}


@pytest.mark.parametrize(
    ("features", "changes", "subject", "status", "remedy"),
    [
        ([], {"mindspore": "2.9.0", "onnx": None}, "mindspore, numpy", Status.BAD, "pip install 'mindspore>=2.10'"),
        (["avx512f"], {}, "mindspore, AVX-512", Status.WARNING, "ONEDNN_MAX_CPU_ISA=AVX2"),
        ([], {**OLDER, "mindspore": "2.6.0"}, "mindspore", Status.WARNING, "mindspore>=2.7"),
        ([], {**OLDER, "onnx": "1.20"}, "mindspore, onnx", Status.WARNING, "import mindspore first"),
        ([], {"numpy": "1.26.4"}, "executorch, numpy", Status.BAD, "pip install 'numpy>=2'"),
    ],
)
def test_known_problems(monkeypatch, features, changes, subject, status, remedy):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    found = problems(features, **changes)
    assert list(found) == [subject]
    assert found[subject].status is status
    assert remedy in found[subject].remedy


def test_no_known_problem(monkeypatch):
    assert problems() == problems(["avx2", "avx512f"], **OLDER) == {}
    assert all("wheels" in found.text for found in problems(mindspore=None).values())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert problems(["avx512f"]) == {}


@pytest.mark.parametrize(
    ("features", "mindspore", "status", "remedy"),
    [
        (["avx2"], "2.10.0", Status.GOOD, ""),
        (["avx2"], "2.8.0", Status.GOOD, ""),
        (["avx2", "avx512f"], "2.8.0", Status.GOOD, ""),
        (["avx2", "avx512f"], "2.10.0", Status.WARNING, "pip install 'mindspore>=2.8,<2.9' 'numpy<2'"),
        (["asimd"], "2.8.0", None, ""),
        (["avx2"], None, None, ""),
    ],
)
def test_the_faster_version_of_mindspore(features, mindspore, status, remedy):
    found = list(doctor.compare_speed({} if mindspore is None else {"mindspore": mindspore}, features))
    assert [(finding.status, finding.remedy) for finding in found] == ([] if status is None else [(status, remedy)])
    assert all("MindSpore 2.8" in finding.text and "2.10" in finding.text for finding in found)


def test_a_device(monkeypatch):
    pytest.importorskip("torch")
    found = doctor.check_device("cpu")
    assert {finding.status for finding in found} == {Status.GOOD}, found
    assert [one.subject for one in found] == [f"{name} on cpu" for name in trainable_names() if is_installed(name)]
    assert all("after 5 steps" in finding.text for finding in found)
    if "ascend" not in " ".join(doctor.devices()):
        found = {finding.subject: finding for finding in doctor.check_device("ascend")}
        assert found.pop("ascend").status is Status.BAD
        assert {finding.status for finding in found.values()} <= {Status.ABSENT}
        assert all("device 'ascend' is not available to" in finding.text for finding in found.values())
    monkeypatch.setattr(doctor, "LOGITS", Bound(-1.0, -1.0))
    monkeypatch.setattr(doctor, "trainable_names", lambda: ["torch"])
    assert {finding.status for finding in doctor.check_device("cpu")} == {Status.BAD}


@pytest.mark.parametrize("name", backend_names())
def test_working_backend(name):
    if name != "reference":
        pytest.importorskip(name)
    found = doctor.check_backend(name)
    assert found.status is Status.GOOD
    assert found.text.startswith("agrees with the reference to ")


def test_backends_that_differ_or_are_absent(monkeypatch):
    backend, runner = load_backend("reference"), Mock()
    runner.forward.return_value = np.zeros((2, 10))
    wrong = SimpleNamespace(build=backend.build, make_runner=lambda model, mode=None: runner)
    monkeypatch.setattr(doctor, "load_backend", lambda name: wrong)
    found = doctor.check_backend("reference")
    assert found.status is Status.BAD
    assert found.text.startswith("differs from the reference by ")
    monkeypatch.setattr(doctor, "is_installed", lambda name: False)
    found = doctor.check_backend("torch")
    assert (found.status, found.remedy) == (Status.ABSENT, "pip install 'maam[torch]'")


@pytest.mark.parametrize("kind", [ImportError, AttributeError, SystemError])
def test_backend_that_cannot_be_imported(monkeypatch, kind):
    fail = Mock(side_effect=kind("libfoo.so: cannot open\nshared object file"))
    monkeypatch.setattr(doctor, "load_backend", fail)
    monkeypatch.setattr(doctor, "load_training_backend", fail)
    found = doctor.check_backend("reference")
    assert (found.status, found.text) == (Status.BAD, f"{kind.__name__}: libfoo.so: cannot open shared object file")
    assert doctor.devices() == ["cpu"]


def test_engines(monkeypatch, tmp_path):
    (tmp_path / "brokenengine.py").write_text("raise RuntimeError('no such instruction')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.ENGINES, "absentengine", "deploy")
    found = doctor.check_engine("brokenengine")
    assert (found.status, found.text) == (Status.BAD, "RuntimeError: no such instruction")
    assert doctor.check_engine("absentengine").remedy == "pip install 'maam[deploy]'"
    assert doctor.check_engine("json").status is Status.GOOD


def test_command(run):
    found = run("doctor", "--quick")
    assert found.out.startswith("python ")
    assert "devices: cpu" in found.out
    assert found.status == int("bad" in found.out)
