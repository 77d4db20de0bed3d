"""Aliases of presets, such as "MAFCV2", in timm's registry.

They are functions of a separate module, so that `timm.list_models(module="presets")` lists each preset once.
"""

from maam.timm.presets import REGISTRY

__all__ = ["register_aliases"]  # timm appends the names of the models


def register_aliases() -> None:
    """Register the aliases of all registered presets, except names of other models."""
    REGISTRY.register_aliases(__name__)
