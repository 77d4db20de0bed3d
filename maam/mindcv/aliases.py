"""Aliases of presets, such as "MAFCV2", in MindCV's registry.

They are functions of a separate module, so that `mindcv.list_models(module="presets")` lists each preset once.
"""

from maam.mindcv.presets import REGISTRY

__all__ = ["register_aliases"]  # MindCV appends the names of the models


def register_aliases() -> None:
    """Register the aliases of all registered presets, except names of other models."""
    REGISTRY.register_aliases(__name__)
