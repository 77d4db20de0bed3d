"""Registration of the presets as models of MindCV.

MindCV identifies a model by a function and its module: `mindcv.list_models(module="presets")` lists those of this
module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindcv.models.registry import is_model, model_entrypoint, register_model
from mindspore import nn

from maam._registration import Registry, attention_option, without_zero_rates
from maam.errors import WeightsError
from maam.mindspore import build
from maam.mindspore.insertion import LAYERS
from maam.spec import Conv2d, Model, head
from maam.weights.pretrained import has_pretrained

default_cfgs: dict[str, dict[str, Any]] = {}
"""MindCV's configuration of each model; MindCV requires this name."""
REGISTRY = Registry("MindCV", __name__, is_model, model_entrypoint, register_model)


def register_presets(pattern: str = "*") -> list[str]:
    """Register the presets that match a shell wildcard and are classifiers in MindCV's registry.

    Importing `maam.mindcv` calls this function for all presets. Call it again after `maam.register_preset`.

    Args:
        pattern: a shell wildcard for names of presets.

    Returns:
        The names of the matching presets, including those that were registered before.

    Raises:
        PresetError: MindCV has another model with the name of a preset. Nothing is registered then.

    Example:
        >>> import mindcv
        >>> from maam.mindcv import register_presets
        >>> register_presets("maam_d*")
        ['maam_digits']
        >>> mindcv.create_model("maam_digits", num_classes=4, in_channels=1).spec.num_classes
        4
    """
    found = REGISTRY.find_classifiers(pattern, head)
    for name, spec in found.items():
        if not is_preset(name):
            default_cfgs[name] = _configuration(spec)
            REGISTRY.register(_entrypoint(name), name, __name__)
    return list(found)


def is_preset(name: str) -> bool:
    """Return whether MindCV's model `name` is one of our presets."""
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
        if pretrained and not has_pretrained(name):
            raise WeightsError(
                f"{name}: there are no pretrained weights for this preset; omit pretrained, or pass the path of a file "
                "as checkpoint_path of maam.mindcv.create_model"
            )
        options = without_zero_rates(options)
        if "attention" in options:
            options["attention"] = attention_option(name, options["attention"], LAYERS)
        model = build(
            name, seed=seed, pretrained=pretrained, num_classes=num_classes, in_channels=in_channels, **options
        )
        model.default_cfg = default_cfgs[name]
        return model

    create.__doc__ = (
        f"Build the preset {name!r}. `options` are the options of the preset. With `seed` all frameworks draw the same "
        "weights."
    )
    return create
