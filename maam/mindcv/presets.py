"""The presets as MindCV models: for each one a function in MindCV's registry, under the preset's name.

The functions stand in this module by name, as MindCV's own do in theirs: `mindcv.list_models(module="presets")`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import is_model, model_entrypoint, register_model
from mindspore import nn

from maam._registration import Registry, attention_option
from maam.errors import WeightsError
from maam.mindspore import build
from maam.mindspore.insertion import LAYERS
from maam.spec import Conv2d, Model, head, preset

default_cfgs: dict[str, dict[str, Any]] = {}
"""What MindCV notes of each model, in its own form; it looks for this name."""
REGISTRY = Registry("MindCV", __name__, is_model, model_entrypoint)


def register_presets(pattern: str = "*") -> list[str]:
    """Register the presets that match a shell wildcard and are classifiers; returns their names.

    Those that are registered already stay; a preset that was added by `maam.register_preset` since is new.

    Raises:
        PresetError: a model of another origin has a preset's name in MindCV's registry; nothing is registered then.
    """
    found = REGISTRY.find_classifiers(pattern, head)
    for name, spec in found.items():
        if not is_preset(name):
            default_cfgs[name] = _configuration(spec)
            globals()[name] = register_model(_entrypoint(name))
    return list(found)


def is_preset(name: str) -> bool:
    """Whether MindCV's model of this name is one of ours."""
    return REGISTRY.is_preset(name)


def _configuration(spec: Model) -> dict[str, Any]:
    convolutions = (path for path, node in spec.walk() if isinstance(node, Conv2d))
    return {
        "url": "",
        "num_classes": spec.num_classes,
        "input_size": spec.input_shape,
        "first_conv": next(convolutions, ""),
        "classifier": head(spec),
    }


def _entrypoint(name: str) -> Callable[..., nn.Cell]:
    def create(
        pretrained: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        seed: int | None = None,
        **options: Any,
    ) -> nn.Cell:
        if pretrained:
            raise WeightsError(
                f"{name}: there are no published weights; leave pretrained out, or load a file of your own by "
                "checkpoint_path"
            )
        if "attention" in options:
            options["attention"] = attention_option(name, options["attention"], LAYERS)
        spec = preset(name, num_classes=num_classes, in_channels=in_channels, **options)
        model = build(spec, seed=seed)
        model.default_cfg = default_cfgs[name]
        return model

    create.__name__ = create.__qualname__ = name  # by which MindCV registers it
    create.__doc__ = f"The preset {name!r}; `options` are its own, `seed` draws the weights alike in all frameworks."
    return create
