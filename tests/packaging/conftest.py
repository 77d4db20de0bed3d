"""The distributions, built once as a release would be, and an environment that the wheel is installed into."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]


def call(*command, **options):
    """The output of a command that must end well."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=500, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session", name="call")
def _call():
    return call


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """(sdist, wheel), the wheel built from what the sdist holds."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """Make an environment without packages; returns its Python."""

    def make(**options):
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, symlinks=True, **options)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def installed(distributions, empty):
    """The Python of an environment with the wheel, whose dependencies are those of this one."""
    python = empty()
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", distributions[1])
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A line with a path adds the path and no more: the link of an editable install in it is not followed.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="session")
def environment():
    """The environment variables of a user who knows nothing of this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
