"""What the shell offers for arguments (`maam --install-completion`): names that maam itself knows, never a framework's.

Where nothing fits, the shell goes on with the names of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

Complete = Callable[[str], list[str]]


def complete(names: Callable[[], Iterable[str]], *, several: bool = False) -> Complete:
    """A function from what was typed to the names that begin so; with `several`, of a comma-separated list's last."""

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        given = before.split(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in given]

    return offer


def _presets() -> Iterable[str]:
    from maam.spec import list_presets

    return list_presets()


def _recipes() -> Iterable[str]:
    from maam.training.library import list_recipes

    return list_recipes()


def _frameworks() -> Iterable[str]:
    from maam.training.rooms import FRAMEWORKS

    return FRAMEWORKS


def _rooms() -> Iterable[str]:
    from maam.training.rooms import FRAMEWORKS, REFERENCE

    return (*FRAMEWORKS, REFERENCE)


def _devices() -> Iterable[str]:
    from maam.training.devices import DEVICES

    return DEVICES


def _data_sets() -> Iterable[str]:
    from maam.training.recipe import DataName

    return get_args(DataName)


def _image_sets() -> Iterable[str]:
    from maam.cli.images import NAMES

    return NAMES


def _archives() -> Iterable[str]:
    from maam.data.archives import ARCHIVES

    return ARCHIVES


def _precisions() -> Iterable[str]:
    from maam.training.recipe import Precision

    return get_args(Precision)


def _stages() -> Iterable[str]:
    from maam.parity import STAGES

    return [name for name in STAGES if " " not in name]  # which would end the word


def _formats() -> Iterable[str]:
    from maam.exporting import FORMATS

    return FORMATS


def _experiments() -> Iterable[str]:
    from maam.cli.reproduce import FRAMEWORKS
    from maam.reproduction import EXPERIMENTS

    return (*EXPERIMENTS, FRAMEWORKS)


presets = complete(_presets)
several_presets = complete(_presets, several=True)
recipes = complete(_recipes)
frameworks = complete(_frameworks)
several_frameworks = complete(_frameworks, several=True)
several_rooms = complete(_rooms, several=True)
devices = complete(_devices)
data_sets = complete(_data_sets)
image_sets = complete(_image_sets)
archives = complete(_archives)
precisions = complete(_precisions)
several_precisions = complete(_precisions, several=True)
stages = complete(_stages, several=True)
formats = complete(_formats)
experiments = complete(_experiments)
