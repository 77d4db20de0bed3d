"""Where files are written before they are checked, and how they come to their place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from maam import files
from maam.errors import DeploymentError
from maam.exporting.formats import companions


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same disk, that is gone afterwards with all that is left in it.

    Raises:
        DeploymentError: the disk is full, or the system refuses a name.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".maam-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is not None and target.parent.resolve() not in Path(error.filename).resolve().parents:
            raise  # of something else that is done meanwhile
        raise DeploymentError(f"{target}: cannot be written: {error.strerror or error}") from None


def move(temporary: Path, target: Path, name: str) -> None:
    """Put a written file of the format `name` in its place, its companions first.

    A reader that finds the model finds them too. Permissions are those of the file that is replaced, else the user's.
    """
    for source, path in zip(
        [*companions(temporary, name), temporary], [*companions(target, name), target], strict=True
    ):
        source.chmod(files.mode_of(path))
        os.replace(source, os.path.realpath(path))  # a link stays one
