"""The command line: `maam`, or `python -m maam`."""

from __future__ import annotations

import sys

from maam.errors import MaamError


def main() -> None:
    """Run a command; an error of maam's is one line on stderr and exit status 1."""
    from maam.cli.application import application

    try:
        application()
    except MaamError as error:
        print(f"maam: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"maam: {error.filename or ''}: {error.strerror or error}".replace(" : ", " "), file=sys.stderr)
        sys.exit(1)
