"""Whether a module still is what its spec says, and what its layers may be called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from maam.errors import MaamError, SpecError
from maam.weights.conformity import check_conforms, check_method

_TRAINING_ALONE = ("momentum=", "inplace=", "p=")
"""Settings that do not count; p is that of dropout."""


def check_module(module: nn.Module, act: str, error: type[MaamError], skip: Sequence[str] = ()) -> None:
    """Refuse a module of maam in which a layer was replaced, or its settings were changed; but for those in `skip`.

    Raises:
        error: naming the layer, what it was and what it is.
    """
    check_conforms(module, _children, words, act, error, skip)


def check_forward(module: nn.Module, act: str, error: type[MaamError], *, root: bool = True) -> None:
    """Refuse a module of maam (with `root`), or one that it holds, whose class is a user's with a forward of its own.

    Raises:
        error: naming the class.
    """
    check_method(module, _children, "forward", act, error, root=root)


def check_names(names: Iterable[str], container: nn.Module) -> None:
    """Refuse names of layers that a container without layers has for attributes of its own.

    Raises:
        SpecError: naming the layer.
    """
    for name in names:
        if hasattr(container, name):
            raise SpecError(f"layer name {name!r} is an attribute of a PyTorch module; choose another")


def words(module: nn.Module) -> str:
    """What a layer computes by, as its repr says it; synchronised batch norm computes what batch norm does."""
    name = "BatchNorm2d" if isinstance(module, nn.SyncBatchNorm) else type(module).__name__
    settings = [part for part in module.extra_repr().split(", ") if not part.startswith(_TRAINING_ALONE)]
    return f"{name}({', '.join(settings)})"


def _children(module: nn.Module) -> Mapping[str, nn.Module | None]:
    return module._modules
