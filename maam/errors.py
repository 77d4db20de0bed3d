"""The exceptions that maam raises. Each message names what was given, what was expected and what to do."""

from __future__ import annotations

import importlib.util
from numbers import Integral


class MaamError(Exception):
    """Base class of every error that maam raises on purpose."""


class SpecError(MaamError, ValueError):
    """A spec, a layer argument or a spec document is invalid."""


class ArgumentError(SpecError, TypeError):
    """A layer class was called with an argument that it does not have, or without one that it needs.

    Libraries that try which arguments a layer takes, as timm does, catch the `TypeError`.
    """


class ShapeError(MaamError, ValueError):
    """An input has the wrong rank, channel count, spatial size or dtype.

    `path` is the canonical name of the layer that refused it (empty at the root).
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def below(self, name: str) -> ShapeError:
        """The same error, seen from the container that holds the layer under `name`."""
        return ShapeError(self.reason, f"{name}.{self.path}" if self.path else name)

    def __reduce__(self) -> tuple[type[ShapeError], tuple[str, str]]:
        return ShapeError, (self.reason, self.path)


class PresetError(MaamError, ValueError):
    """A preset or one of its options does not exist."""


class WeightsError(MaamError, ValueError):
    """A weights file is missing, broken, foreign, or belongs to another spec."""


class DataError(MaamError, ValueError):
    """A data set is missing, incomplete or malformed."""


class RecipeError(MaamError, ValueError):
    """A training recipe is missing, malformed, or has an unknown or contradictory field."""


class TrainingError(MaamError, RuntimeError):
    """A training run cannot start, go on, or has diverged."""


class DeviceError(MaamError, RuntimeError):
    """A device or a precision is not available here."""


class DeploymentError(MaamError, ValueError):
    """A model cannot be fused, optimized, exported, quantized or pruned as asked, or a setting does not exist here."""


class PortingError(MaamError, ValueError):
    """Two models of a user's own cannot be matched, or cannot be run as asked."""


class MissingFrameworkError(MaamError, ImportError):
    """An optional package that the call needs is not installed."""


def require(package: str, extra: str) -> None:
    """Raise `MissingFrameworkError` naming the extra to install, unless `package` can be found."""
    try:
        found = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise MissingFrameworkError(f"{package} is not installed; run: pip install 'maam[{extra}]'")


def check_counts(**counts: object) -> None:
    """Raise `SpecError` naming the argument, unless each is an integer of at least 1, of Python or NumPy."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 1:
            raise SpecError(f"{name}: expected an integer of at least 1, got {count!r}")
