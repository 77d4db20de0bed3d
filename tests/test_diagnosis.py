"""`maam doctor`: what it finds, and what it says of combinations that are known to be bad."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from maam.cli import doctor
from maam.cli.doctor import Status

HEALTHY = {"numpy": "1.26.4", "mindspore": "2.8.0", "torch": "2.15.0", "onnx": "1.20", "protobuf": "7.35.0"}


def troubles(features=(), **changes):
    installed = {**HEALTHY, **changes}
    found = doctor.known_troubles({k: v for k, v in installed.items() if v is not None}, list(features))
    return {finding.subject: finding for finding in found}


def test_nothing_to_say():
    assert troubles(["avx2", "avx512f"]) == {}


@pytest.mark.parametrize(
    ("features", "changes", "subject", "status", "remedy"),
    [
        ([], {"numpy": "2.1.0"}, "mindspore, numpy", Status.BAD, "pip install 'numpy<2'"),
        (["avx512f"], {"mindspore": "2.10.0"}, "mindspore, AVX-512", Status.WARNING, "ONEDNN_MAX_CPU_ISA=AVX2"),
        ([], {"mindspore": "2.6.0"}, "mindspore", Status.WARNING, "mindspore>=2.7,<2.9"),
        ([], {"protobuf": "6.33.0"}, "mindspore, onnx", Status.WARNING, "import mindspore first"),
        ([], {"executorch": "1.0.0"}, "mindspore, executorch", Status.BAD, "an environment of its own"),
    ],
)
def test_known_troubles(monkeypatch, features, changes, subject, status, remedy):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    found = troubles(features, **changes)
    assert list(found) == [subject]
    assert found[subject].status is status
    assert remedy in found[subject].remedy


def test_a_cap_that_is_set_is_no_trouble(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert troubles(["avx512f"], mindspore="2.10.0") == {}


def test_troubles_of_mindspore_need_mindspore():
    assert all("wheels" in found.text for found in troubles(mindspore=None, numpy="2.0.0").values())


@pytest.mark.parametrize("name", list(doctor.ROOMS))
def test_a_room_that_works(name):
    if name != "reference":
        pytest.importorskip(name)
    found = doctor.check_room(name)
    assert found.status is Status.GOOD
    assert found.text.startswith("agrees with the referee to ")


def test_rooms_that_do_not(monkeypatch):
    monkeypatch.setitem(doctor._LOGITS, "reference", lambda images: np.zeros((2, 10)))
    assert doctor.check_room("reference").text.startswith("differs from the referee by ")

    for kind in (ImportError, AttributeError, SystemError):

        def broken(images, kind=kind):
            raise kind("libfoo.so: cannot open\nshared object file")

        monkeypatch.setitem(doctor._LOGITS, "reference", broken)
        found = doctor.check_room("reference")
        assert (found.status, found.text) == (Status.BAD, f"{kind.__name__}: libfoo.so: cannot open shared object file")
    monkeypatch.setitem(doctor.ROOMS, "torch", "no_such_package")
    assert doctor.check_room("torch").status is Status.ABSENT


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


def test_a_broken_framework_has_no_devices(monkeypatch):
    def broken(name):
        raise ImportError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert doctor.devices() == ["cpu"]


def test_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "maam", "doctor", "--quick"], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("python ")
    assert "devices: cpu" in done.stdout
    assert done.returncode == int("bad" in done.stdout)
