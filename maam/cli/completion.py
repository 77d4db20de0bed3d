"""Names that the shell offers for arguments (`maam --install-completion`); no framework is imported for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import get_args

Complete = Callable[[str], list[str]]


def complete(*sources: str, several: bool = False) -> Complete:
    """Return a function from the typed text to the names that begin with it.

    Args:
        sources: "module:attribute", imported when the shell asks. The attribute is a name, a collection of names, a
            Literal of names, or a function that returns names.
        several: whether the argument is a comma-separated list; its last name is then completed.
    """

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        given = before.split(",")
        names = [name for source in sources for name in _names(source) if " " not in name]  # a space ends the word
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in given]

    return offer


def _names(source: str) -> list[str]:
    module, _, attribute = source.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, str):
        return [found]
    return list(get_args(found) or (found() if callable(found) else found))


_PRESETS = "maam.spec:list_presets"
_FRAMEWORKS = "maam.backend.registry:trainable_names"
_BACKENDS = "maam.backend.registry:backend_names"
_PRECISIONS = "maam.training.recipe:Precision"
presets = complete(_PRESETS)
recipes = complete("maam.training.recipe_files:list_recipes")
frameworks = complete(_FRAMEWORKS)
several_frameworks = complete(_FRAMEWORKS, several=True)
backends = complete(_BACKENDS)
several_backends = complete(_BACKENDS, several=True)
devices = complete("maam.backend.devices:DEVICES")
data_sets = complete("maam.training.recipe:DataName")
image_sets = complete("maam.cli.images:NAMES")
archives = complete("maam.data.archives:ARCHIVES")
precisions = complete(_PRECISIONS)
several_precisions = complete(_PRECISIONS, several=True)
stages = complete("maam.parity:STAGES", several=True)
formats = complete("maam.deploy:FORMATS")
engines = complete("maam.backend.engines:ENGINES", "maam.backend.engines:AUTO", several=True)
