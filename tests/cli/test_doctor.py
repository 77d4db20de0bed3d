"""`maam doctor`: its checks, and its remedies for combinations that are known to fail."""

from importlib.util import find_spec

import numpy as np
import pytest

from maam.backend.registry import backend_names, load_backend
from maam.cli import doctor
from maam.cli.doctor import Status

HEALTHY = {"numpy": "1.26.4", "mindspore": "2.8.0", "torch": "2.15.0", "onnx": "1.20", "protobuf": "7.35.0"}


def problems(features=(), **changes):
    installed = {**HEALTHY, **changes}
    found = doctor.known_problems({k: v for k, v in installed.items() if v is not None}, list(features))
    return {finding.subject: finding for finding in found}


@pytest.mark.parametrize(
    ("features", "changes", "subject", "status", "remedy"),
    [
        ([], {"numpy": "2.1.0"}, "mindspore, numpy", Status.BAD, "pip install 'numpy<2'"),
        (["avx512f"], {"mindspore": "2.10.0"}, "mindspore, AVX-512", Status.WARNING, "ONEDNN_MAX_CPU_ISA=AVX2"),
        ([], {"mindspore": "2.6.0"}, "mindspore", Status.WARNING, "mindspore>=2.7,<2.9"),
        ([], {"protobuf": "6.33.0"}, "mindspore, onnx", Status.WARNING, "import mindspore first"),
        ([], {"executorch": "1.0.0"}, "mindspore, executorch", Status.BAD, "separate environments"),
    ],
)
def test_known_problems(monkeypatch, features, changes, subject, status, remedy):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    found = problems(features, **changes)
    assert list(found) == [subject]
    assert found[subject].status is status
    assert remedy in found[subject].remedy


def test_no_known_problem(monkeypatch):
    assert problems(["avx2", "avx512f"]) == {}
    assert all("wheels" in found.text for found in problems(mindspore=None, numpy="2.0.0").values())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert problems(["avx512f"], mindspore="2.10.0") == {}


@pytest.mark.parametrize("name", backend_names())
def test_working_backend(name):
    if name != "reference":
        pytest.importorskip(name)
    found = doctor.check_backend(name)
    assert found.status is Status.GOOD
    assert found.text.startswith("agrees with the reference to ")


def test_backend_that_differs(monkeypatch):
    backend = load_backend("reference")

    class Wrong:
        build = staticmethod(backend.build)

        def make_runner(self, model, mode=None):
            runner = backend.make_runner(model)
            monkeypatch.setattr(runner, "forward", lambda x, training=False: np.zeros((2, 10)), raising=False)
            return runner

    monkeypatch.setattr(doctor, "load_backend", lambda name: Wrong())
    found = doctor.check_backend("reference")
    assert found.status is Status.BAD
    assert found.text.startswith("differs from the reference by ")


@pytest.mark.parametrize("kind", [ImportError, AttributeError, SystemError])
def test_backend_that_cannot_be_imported(monkeypatch, kind):
    def fail(name):
        raise kind("libfoo.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "load_backend", fail)
    monkeypatch.setattr(doctor, "load_training_backend", fail)
    found = doctor.check_backend("reference")
    assert (found.status, found.text) == (Status.BAD, f"{kind.__name__}: libfoo.so: cannot open shared object file")
    assert doctor.devices() == ["cpu"]


def test_backend_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "is_installed", lambda name: False)
    found = doctor.check_backend("torch")
    assert (found.status, found.remedy) == (Status.ABSENT, "pip install 'maam[torch]'")


def test_engines(monkeypatch, tmp_path):
    (tmp_path / "brokenengine.py").write_text("raise RuntimeError('no such instruction')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.ENGINES, "brokenengine", "deploy")
    found = doctor.check_engine("brokenengine")
    assert (found.status, found.text) == (Status.BAD, "RuntimeError: no such instruction")
    monkeypatch.setitem(doctor.ENGINES, "absentengine", "deploy")
    assert doctor.check_engine("absentengine").remedy == "pip install 'maam[deploy]'"
    assert doctor.check_engine("json").status is Status.GOOD
    if find_spec("executorch") is None and find_spec("mindspore") is not None:
        assert doctor.check_engine("executorch").remedy.endswith(", in an environment without mindspore")


def test_command(run):
    found = run("doctor", "--quick")
    assert found.out.startswith("python ")
    assert "devices: cpu" in found.out
    assert found.status == int("bad" in found.out)
