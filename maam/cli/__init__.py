"""The command line: `maam`, or `python -m maam`."""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn, TextIO

from maam import _signals
from maam._messages import one_line, printable
from maam.errors import MaamError

_INTERRUPTED = 130
_SCREEN = 1800
"""The characters that fit on a screen of 24 lines of 80."""
_OUT_OF_MEMORY = ("out of memory", "allocate memory")
"""Parts of the messages of PyTorch and MindSpore, which raise no special class of error."""


def main() -> None:
    """Run a command. An expected error is one line on standard error and exit status 1, without a traceback."""
    _signals.install()
    try:
        from maam.cli.app import application
        from maam.cli.terminal import protect, quiet_mindspore

        protect()
        with quiet_mindspore(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            application(prog_name="maam")  # also for `python -m maam`: completion depends on the name
    except MaamError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"not enough memory: {error}")
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except RuntimeError as error:
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        _fail(f"not enough memory; try a smaller batch_size: {str(error)[:200]}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of maam as one line, and other warnings as Python does."""
    if category.__module__.startswith("maam."):
        text = f"maam: warning: {one_line(message)}\n"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)


def _fail(message: str) -> NoReturn:
    text = one_line(message)
    if len(text) > _SCREEN:
        text = f"{text[: _SCREEN // 2]} ... {text[-_SCREEN // 3 :]}"
    if sys.stderr is not None:
        print(printable(f"maam: {text}"), file=sys.stderr)
    sys.exit(1)
