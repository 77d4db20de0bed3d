"""The command line: `maam`, or `python -m maam`."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

from maam.errors import MaamError

_INTERRUPTED = 130
_OUT_OF_MEMORY = ("out of memory", "allocate memory")
"""What PyTorch and MindSpore say then, by errors of no class of its own."""


def main() -> None:
    """Run a command; an error of maam's, of the system or of the disk is one line on stderr and exit status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        from maam.cli.app import application
        from maam.cli.terminal import quiet_mindspore

        with quiet_mindspore():
            application(prog_name="maam")  # completion is for this name, by `python -m maam` too
    except MaamError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"not enough memory: {error}")
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except RuntimeError as error:
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        _fail(f"not enough memory, a smaller batch_size needs less: {str(error)[:200]}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _fail(message: str) -> NoReturn:
    print(f"maam: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)
