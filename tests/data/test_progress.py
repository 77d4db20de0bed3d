import io
import sys

import pytest

from maam.data.download import show_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_is_printed_at_each_tenth(capsys):
    with show_progress("cifar10") as report:
        for done in range(0, 1001, 7):
            report(done, 1000)
        report(1000, 1000)
    assert capsys.readouterr().err.splitlines() == [f"cifar10: {share} %" for share in range(10, 101, 10)]


@pytest.mark.parametrize("total", [None, 0])
def test_no_line_is_printed_where_the_size_is_unknown(capsys, total):
    with show_progress("cifar10") as report:
        report(10, total)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [None, 4_000_000])
def test_a_terminal_shows_a_bar(monkeypatch, total):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_progress("cifar10") as report:
        report(2_000_000, total)
    assert "cifar10" in terminal.getvalue()
    assert ("2.0/4.0 MB" if total else "2.0/? MB") in terminal.getvalue()
