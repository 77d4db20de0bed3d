"""SIGINT (Ctrl-C) and SIGTERM: a clean end of the program, or of a training run after its current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the program as the signal `number` asks, after all `finally` clauses; the status of SIGTERM is 143."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def install() -> None:
    """Let SIGTERM run all `finally` clauses, which remove temporary files, unless the program handles it otherwise."""
    if _may_install() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def reinstall() -> None:
    """Install Python's handlers again. MindSpore replaces that of SIGINT, and Python does not notice it.

    While a graph of MindSpore runs, its own handler is installed, which turns SIGINT into SIGTERM.
    """
    if not _may_install():
        return
    for number in SIGNALS:
        if (handler := signal.getsignal(number)) is not None:
            signal.signal(number, handler)


def _may_install() -> bool:
    """Return whether this is the main thread; Python installs handlers in no other."""
    return threading.current_thread() is threading.main_thread()


class Deferred:
    """A context in which the first SIGINT or SIGTERM only sets `number`; the second one acts at once.

    Handlers that the program has set itself are kept.

    Attributes:
        number: the signal; 0 if there was none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Deferred:
        if _may_install():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler in (signal.SIG_DFL, signal.default_int_handler, end):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def end(self) -> NoReturn:
        """Do what the signal asked for."""
        end(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            end(number)
        self.number = number
