"""Other names of presets, such as "MAFCV2", in MindCV's registry.

The functions stand in a module of their own, so that `mindcv.list_models(module="presets")` names each preset once.
"""

from mindcv.models.registry import register_model

from maam.mindcv.presets import REGISTRY

__all__ = ["register_aliases"]  # MindCV adds the models' names


def register_aliases() -> None:
    """Register the aliases of presets that MindCV knows; a name that is taken stays what it is."""
    for alias, function in REGISTRY.other_names(__name__).items():
        globals()[alias] = register_model(function)
