"""Other names of presets, such as "MAFCV2", in timm's registry.

The functions stand in a module of their own, so that `timm.list_models(module="presets")` names each preset once.
"""

from timm.models import register_model

from maam.timm.presets import REGISTRY

__all__ = ["register_aliases"]  # timm adds the models' names


def register_aliases() -> None:
    """Register the aliases of presets that timm knows; a name that is taken stays what it is."""
    for alias, function in REGISTRY.other_names(__name__).items():
        globals()[alias] = register_model(function)
