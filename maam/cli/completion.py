"""What the shell offers for arguments (`maam --install-completion`): names that maam itself knows, never a framework's.

Where nothing fits, the shell goes on with the names of files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import get_args

Complete = Callable[[str], list[str]]


def complete(*sources: str, several: bool = False) -> Complete:
    """A function from what was typed to the names that begin so; with `several`, of a comma-separated list's last.

    A source is "module:attribute", looked up when the shell asks: a name, a collection of names, a Literal of them,
    or a function that returns them.
    """

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        given = before.split(",")
        names = [name for source in sources for name in _look_up(source) if " " not in name]  # which ends the word
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in given]

    return offer


def _look_up(source: str) -> list[str]:
    module, _, attribute = source.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, str):
        return [found]
    return list(get_args(found) or (found() if callable(found) else found))


_PRESETS = "maam.spec:list_presets"
_FRAMEWORKS = "maam.training.rooms:FRAMEWORKS"
_PRECISIONS = "maam.training.recipe:Precision"
presets = complete(_PRESETS)
several_presets = complete(_PRESETS, several=True)
recipes = complete("maam.training.library:list_recipes")
frameworks = complete(_FRAMEWORKS)
several_frameworks = complete(_FRAMEWORKS, several=True)
rooms = complete(_FRAMEWORKS, "maam.training.rooms:REFERENCE")
several_rooms = complete(_FRAMEWORKS, "maam.training.rooms:REFERENCE", several=True)
devices = complete("maam.training.devices:DEVICES")
data_sets = complete("maam.training.recipe:DataName")
image_sets = complete("maam.cli.images:NAMES")
archives = complete("maam.data.archives:ARCHIVES")
precisions = complete(_PRECISIONS)
several_precisions = complete(_PRECISIONS, several=True)
stages = complete("maam.parity:STAGES", several=True)
formats = complete("maam.exporting:FORMATS")
experiments = complete("maam.reproduction:EXPERIMENTS", "maam.cli.reproduce:FRAMEWORKS")
groups = complete("maam.cli.bench:GROUPS")
