"""Atomic writes, locks, timing and figures."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from maam import _io, plots
from maam._system import interleave, ratios


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file.json", tmp_path / "link.json"
    link.symlink_to(target)
    for text in ("new", "newer"):
        _io.write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_what_is_no_file_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    _io.write_text(pipe, "text")
    reader.join(10)
    assert read == [b"text"]
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no such folder")
def test_files_in_memory_are_replaced():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "file"
        for text in ("one", "two"):
            _io.write_text(path, text)
        assert path.read_text() == "two"
        assert not _io.is_special(path)


def test_names_that_are_no_text(tmp_path):
    for name in (b"a\xff.json", b"\xff" * 240):
        path = tmp_path / os.fsdecode(name)
        _io.write_text(path, "text \udcff")
        assert path.read_text() == "text \\udcff"


def test_what_is_special(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "null").symlink_to("/dev/null")
    assert [_io.is_special(tmp_path / name) for name in ("file", "null", "none", ".")] == [False, True, False, False]
    assert _io.is_special(Path("/dev/null"))


def test_standard_output_is_appended_to(tmp_path):
    program = "from maam import _io; print('before', flush=True); _io.write_text('/dev/stdout', 'text')"
    with (tmp_path / "out.txt").open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ntext"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert piped.stdout == "before\ntext"


def wait(there, go):
    there.set()
    go.wait(60)


@pytest.mark.skipif(_io.fcntl is None, reason="no locks of this kind")
class TestHolding:
    def test_one_at_a_time(self, tmp_path):
        release = _io.hold(tmp_path)
        with pytest.raises(BlockingIOError):
            _io.hold(tmp_path)
        release()
        release()
        _io.hold(tmp_path)()

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12; the child only waits
    def test_a_child_does_not_hold_on(self, tmp_path):
        """As the processes that decode images, which may outlive one that is killed."""
        release = _io.hold(tmp_path)
        context = multiprocessing.get_context("fork")
        there, go = context.Event(), context.Event()
        child = context.Process(target=wait, args=(there, go))
        child.start()
        there.wait(60)
        release()
        try:
            _io.hold(tmp_path)()
        finally:
            go.set()
            child.join()


class Clock:
    """A clock that stands still but for what functions say they take."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        def call():
            self.order.append(name)
            self.now += seconds

        return call


def test_each_round_runs_all():
    clock = Clock()
    times = interleave({"a": clock.function("a", 0.1), "b": clock.function("b", 0.3)}, rounds=3, least=0.3, clock=clock)
    assert times == {"a": [pytest.approx(0.1)] * 3, "b": [pytest.approx(0.3)] * 3}
    assert clock.order == ["a"] * 2 + ["b"] * 2 + (["a"] * 3 + ["b"]) * 3


def test_ratios_are_within_a_round():
    times = {"base": [1.0, 10.0, 2.0], "fast": [0.5, 5.0, 1.0], "odd": [1.0, 1.0, 1.0]}
    assert ratios(times, "base") == {"base": 1.0, "fast": 2.0, "odd": 2.0}


pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
ODD = "a$b_$^ x"  # a formula that cannot be read


@pytest.mark.parametrize("count", [3, 40, 120])
def test_confusion_matrices(count, tmp_path):
    names = [f"{ODD} {index}" for index in range(count)]
    labels = np.arange(count).repeat(2)
    plots.draw_confusion_matrix(labels, labels[::-1], names, tmp_path / "matrix.png", ODD)
    assert (tmp_path / "matrix.png").stat().st_size > 1000


def test_names_of_classes_that_are_no_text(tmp_path):
    plots.draw_confusion_matrix(np.arange(2), np.arange(2), ["caf\udce9", "b"], tmp_path / "matrix.png", "")
    assert (tmp_path / "matrix.png").stat().st_size > 1000


def test_counts_stand_in_small_matrices_alone(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure.axes[0]))
    for count in (30, 31, 101):
        labels = np.arange(count)
        plots.draw_confusion_matrix(labels, labels, [str(label) for label in labels], tmp_path / "m.png", "")
    assert [len(axis.texts) for axis in drawn] == [900, 0, 0]
    assert [len(axis.get_xticks()) for axis in drawn] == [30, 31, 0]


def test_many_runs_and_long_names(tmp_path, monkeypatch):
    drawn = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    for names in ([f"run {index}" for index in range(20)], ["a" * 300, "b" * 300], ["caf\udce9 $x"]):
        curves = {name: np.linspace(0, 1, 3) for name in names}
        plots.draw_runs(curves, curves, tmp_path / "runs.png", "")
        lines = drawn[-1].axes[0].lines
        assert len({str(line.get_color()) for line in lines}) == len(names) == len(lines) / 2
    assert (tmp_path / "runs.png").stat().st_size > 1000


def test_titles_and_legends_are_no_formulas(tmp_path):
    values = {"loss": np.ones(4), "accuracy": np.ones(4)}
    plots.draw_training(values, {name: one[:2] for name, one in values.items()}, tmp_path / "a.png", ODD)
    plots.draw_fusion([{ODD: [0.5, 0.5]}], tmp_path / "b.png", ODD)
    plots.draw_losses({ODD: np.ones((1, 2))}, {ODD: np.ones((1, 2))}, tmp_path / "c.png", ODD)
    plots.draw_step_losses({ODD: np.ones(3), "b": np.ones(3)}, tmp_path / "d.png", ODD)
    plots.draw_accuracies({ODD: [0.5]}, {}, tmp_path / "e.png", ODD)
    assert len(list(tmp_path.iterdir())) == 5
