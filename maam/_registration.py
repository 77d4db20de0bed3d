"""Registration of the presets in the model registries of timm and MindCV, and the presets' option `attention`."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from maam._messages import suggestion
from maam.errors import PresetError, SpecError
from maam.spec import Model, list_presets, preset
from maam.spec.presets import aliases

NO_ATTENTION = "none"
"""The value of `attention` for no attention; `create_model` of timm and MindCV drops arguments that are None."""


NO_REGULARIZATION = (
    "drop_rate",
    "drop_path_rate",
    "drop_block_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_connect_rate",
)
"""Options of the libraries' own models that training scripts pass to every model; 0 means that nothing is dropped."""


class NotGiven(Enum):
    """The type of the default of an argument for which None has a meaning."""

    TOKEN = "not given"


@dataclass(frozen=True)
class Registry:
    """The model registry of a library.

    Attributes:
        library: the name of the library, for error messages.
        module: the name of the Python module whose functions build our presets.
        is_model: the library's function that returns whether it has a model of that name.
        model_entrypoint: the library's function that returns the function of a model.
        register_model: the library's function that registers a function under its `__name__`.
    """

    library: str
    module: str
    is_model: Callable[[str], bool]
    model_entrypoint: Callable[[str], Any]
    register_model: Callable[[Any], Any]

    def is_preset(self, name: str) -> bool:
        """Return whether the library's model `name` is one of our presets."""
        return self.is_model(name) and self.model_entrypoint(name).__module__ == self.module

    def find_classifiers(self, pattern: str, analyze: Callable[[Model], object]) -> dict[str, Model]:
        """Return the specs of the presets that match a shell wildcard and are classifiers, by name.

        A preset whose function raises an error is skipped with a warning.

        Args:
            pattern: a shell wildcard.
            analyze: a function that raises `SpecError` for a model that is not a classifier.

        Raises:
            PresetError: the library has another model with the name of a preset.
        """
        found = {}
        for name in list_presets(pattern):
            try:
                spec = preset(name)
            except Exception as error:  # the function of a user can raise anything
                warnings.warn(f"preset {name!r} is skipped: {type(error).__name__}: {error}", stacklevel=3)
                continue
            try:
                analyze(spec)
            except SpecError:
                continue
            if self.is_model(name) and not self.is_preset(name):
                origin = self.model_entrypoint(name).__module__
                raise PresetError(
                    f"{self.library} already has a model {name!r} from {origin}; register the preset under another "
                    "name with maam.register_preset(factory, name)"
                )
            found[name] = spec
        return found

    def register(self, create: Callable[..., Any], name: str, module: str) -> None:
        """Register the function `create` as model `name`, and make it an attribute of the Python module."""
        create.__module__, create.__name__, create.__qualname__ = module, name, name  # the library reads these
        setattr(sys.modules[module], name, self.register_model(create))

    def register_aliases(self, module: str) -> None:
        """Register each alias of a registered preset, such as "MAFCV2", unless the library has a model of that name."""
        for alias, name in aliases().items():
            if self.is_preset(name) and not self.is_model(alias):
                original = self.model_entrypoint(name)

                @functools.wraps(original)
                def create(*arguments: Any, original: Callable[..., Any] = original, **options: Any) -> Any:
                    return original(*arguments, **options)

                self.register(create, alias, module)


def without_zero_rates(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without rates of regularization that are 0."""
    return {name: value for name, value in options.items() if name not in NO_REGULARIZATION or value != 0}


def preset_name(name: str) -> str:
    """Return the preset with the alias `name`, or `name` if it is not an alias."""
    return aliases().get(name, name)


def unknown_model(name: object, known: Iterable[str], listing: str) -> PresetError:
    """Return the error for an unknown model; `listing` is the call that lists the `known` models."""
    hint = suggestion(name, known, f"{listing} lists all models", count=3)
    return PresetError(f"no model {str(name)[:60]!r}; {hint}")


def with_attention(
    name: str, options: dict[str, Any], attention: Any, settings: Mapping[str, Any], layers: Mapping[str, type]
) -> dict[str, Any]:
    """Return `options` for the preset `name`, with `attention` if it was given.

    Raises:
        PresetError: one of `settings`, the arguments of the insertion into networks of the library, is set.
        SpecError: see `attention_name`.
    """
    if given := [setting for setting, value in settings.items() if value]:
        raise PresetError(f"{name!r} is a preset, whose spec determines the blocks with attention; omit {given[0]}")
    if attention is NotGiven.TOKEN:
        return options
    return {**options, "attention": attention_name(name, attention, layers)}


def attention_name(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """Return the option `attention` of the preset `name` as a name: of a class in `layers`, or `NO_ATTENTION` for None.

    Raises:
        SpecError: `given` is another class or a function.
    """
    if given is None:
        return NO_ATTENTION
    found = next((known for known, layer in layers.items() if given is layer), given)
    if callable(found):
        package = next(iter(layers.values())).__module__.rpartition(".")[0]
        got = f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else type(found).__name__
        raise SpecError(
            f"attention: expected the name of a layer or a class of {package}, got {got}; {name!r} is a preset, which "
            "accepts no other value; to give its layers other arguments, compose a spec"
        )
    return found.lower() if isinstance(found, str) else found


def attention_option(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """Return the result of `attention_name`, with None in place of `NO_ATTENTION`."""
    found = attention_name(name, given, layers)
    return None if found == NO_ATTENTION else found
