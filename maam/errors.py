"""The exceptions of maam. Each message says what was wrong, what was expected, what was given and what to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path


class MaamError(Exception):
    """Base class of all errors of maam: `except maam.MaamError` catches every one."""


class SpecError(MaamError, ValueError):
    """Invalid spec, layer argument or spec document."""


class ArgumentError(SpecError, TypeError):
    """Unknown or missing argument of a layer class.

    It is a `TypeError` too, because timm and other libraries catch `TypeError` to find out which arguments a layer
    takes.
    """


class ShapeError(MaamError, ValueError):
    """Input with the wrong rank, number of channels, size or dtype.

    Attributes:
        reason: the message without the path.
        path: the canonical name of the layer that raised the error; "" for the whole model.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def below(self, name: str) -> ShapeError:
        """Return the same error with `name`, the container's name of the layer, in front of the path."""
        return ShapeError(self.reason, f"{name}.{self.path}" if self.path else name)

    def __reduce__(self) -> tuple[type[ShapeError], tuple[str, str]]:
        return ShapeError, (self.reason, self.path)


class PresetError(MaamError, ValueError):
    """Unknown preset, or unknown option of a preset."""


class OptionError(PresetError, TypeError):
    """Unknown option of a preset.

    It is a `TypeError` too, because timm expects one from a model that does not know an argument.
    """


class WeightsError(MaamError, ValueError):
    """Weights file that is missing, broken, in another format, or made for another spec."""


class DataError(MaamError, ValueError):
    """Data set that is missing, incomplete or malformed."""


class RecipeError(MaamError, ValueError):
    """Training recipe that is missing or malformed, or has an unknown or contradictory field."""


class TrainingError(MaamError, RuntimeError):
    """Training run that cannot start or continue, or has diverged."""


class DeviceError(MaamError, RuntimeError):
    """Device or precision that is not available on this machine."""


class DeploymentError(MaamError, ValueError):
    """Model that cannot be fused, optimized, exported, quantized or pruned with the given settings."""


class PortingError(MaamError, ValueError):
    """Two models to port that cannot be matched or run."""


class MissingFrameworkError(MaamError, ImportError):
    """Optional package that is needed but not installed."""


def require(package: str, extra: str) -> None:
    """Raise `MissingFrameworkError` with the command to run, unless `package` is installed.

    Args:
        package: the import name.
        extra: the extra of maam that installs it, such as "torch".
    """
    try:
        found = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise MissingFrameworkError(f"{package} is not installed; run: {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that installs an extra of maam; in a checkout, from there."""
    folder = _checkout()
    return f"pip install 'maam[{extra}]'" if folder is None else f"pip install -e '{folder}[{extra}]'"


def _checkout() -> Path | None:
    """Return the folder of the checkout that this package runs from; None for an installed package."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / "pyproject.toml").is_file():
        return None
    return Path() if folder == Path.cwd() else folder
