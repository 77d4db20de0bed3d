"""A preset's option `attention` on its way through the `create_model` of another library, which drops what is None."""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from maam.errors import PresetError, SpecError
from maam.spec import Model, list_presets, preset
from maam.spec.presets import aliases


def preset_name(name: str) -> str:
    """The preset that a name of a model stands for; the name itself where it is no alias."""
    return aliases().get(name, name)


def unknown_model(name: object, known: Iterable[str], listing: str) -> PresetError:
    """The error for a library's model that there is not; `listing` is the call that lists the `known` ones."""
    close = difflib.get_close_matches(str(name), list(known), 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"{listing} shows all of them"
    return PresetError(f"no model {str(name)[:60]!r}; {hint}")


class Registry(NamedTuple):
    """A library's registry of models.

    Attributes:
        library: its name, for messages.
        module: the module that holds our functions in it.
        is_model: whether it has a model of a name.
        model_entrypoint: the function of a name that it has.
    """

    library: str
    module: str
    is_model: Callable[[str], bool]
    model_entrypoint: Callable[[str], Any]

    def is_preset(self, name: str) -> bool:
        """Whether the library's model of this name is one of ours."""
        return self.is_model(name) and self.model_entrypoint(name).__module__ == self.module

    def other_names(self, module: str) -> dict[str, Callable[..., Any]]:
        """For each alias of a preset that the library has, such as "MAFCV2", a function that `module` can register.

        An alias that the library has a model of stays what it is.
        """
        free = {alias: name for alias, name in aliases().items() if self.is_preset(name) and not self.is_model(alias)}
        return {alias: self._renamed(name, alias, module) for alias, name in free.items()}

    def _renamed(self, name: str, alias: str, module: str) -> Callable[..., Any]:
        original = self.model_entrypoint(name)

        @functools.wraps(original)
        def create(*arguments: Any, **options: Any) -> Any:
            return original(*arguments, **options)

        create.__module__, create.__name__, create.__qualname__ = module, alias, alias  # what libraries register by
        return create

    def find_classifiers(self, pattern: str, look: Callable[[Model], object]) -> dict[str, Model]:
        """The presets that match a shell wildcard and are classifiers, by name: `look` raises SpecError for others.

        Raises:
            PresetError: a model of another origin has the name of one.
        """
        made = {name: spec for name in list_presets(pattern) if (spec := _made(name)) is not None}
        found = {name: spec for name, spec in made.items() if _passes(look, spec)}
        for name in found:
            if self.is_model(name) and not self.is_preset(name):
                origin = self.model_entrypoint(name).__module__
                raise PresetError(
                    f"{self.library} has a model {name!r} of {origin} already; give one of the two another name, the "
                    "preset by maam.register_preset(factory, name)"
                )
        return found


def _made(name: str) -> Model | None:
    """The preset, or None and a warning where a user's function fails: the others are not to suffer from that."""
    try:
        return preset(name)
    except Exception as error:  # any, from a function that is not ours
        warnings.warn(f"preset {name!r} is left out: {type(error).__name__}: {error}", stacklevel=4)
        return None


def _passes(look: Callable[[Model], object], spec: Model) -> bool:
    try:
        look(spec)
    except SpecError:
        return False
    return True


NO_ATTENTION = "none"
"""What stands for the preset's `attention=None` on the way."""


class NotGiven(Enum):
    """The type of an argument that was left out, where None says something."""

    TOKEN = "not given"


def attention_name(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """The attention of the preset `name` as a value: a class of `layers` by its name, `NO_ATTENTION` for None.

    Raises:
        SpecError: it is another class, or a function.
    """
    if given is None:
        return NO_ATTENTION
    found = next((known for known, layer in layers.items() if given is layer), given)
    if callable(found):
        own = next(iter(layers.values())).__module__.rpartition(".")[0]
        what = f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else type(found).__name__
        raise SpecError(
            f"attention: {name!r} is a preset and takes a layer by name, or as the class of {own}, got {what}; for "
            "other arguments compose a spec of your own"
        )
    return found.lower() if isinstance(found, str) else found


def attention_option(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """The same as the preset itself takes it: None again for `NO_ATTENTION`.

    Raises:
        SpecError: as `attention_name`.
    """
    found = attention_name(name, given, layers)
    return None if found == NO_ATTENTION else found


def with_attention(
    name: str, options: dict[str, Any], attention: Any, every_block: bool, layers: Mapping[str, type]
) -> dict[str, Any]:
    """`options` for the preset `name`, with `attention` where it was given.

    Raises:
        PresetError: `every_block` is asked for.
        SpecError: as `attention_name`.
    """
    if every_block:
        raise PresetError(f"{name!r} is a preset, whose spec says where attention stands; leave every_block out")
    if attention is NotGiven.TOKEN:
        return options
    return {**options, "attention": attention_name(name, attention, layers)}
