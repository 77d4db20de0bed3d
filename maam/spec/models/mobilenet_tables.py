"""The tables of the MobileNets: widths, strides, kernel sizes, activations, and where attention goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from maam.spec.primitives import ElementwiseName


class Unit(NamedTuple):
    """A unit: widths at its end and in its middle (0: none, as in V1), and whether it carries attention."""

    width: int
    middle: int = 0
    attended: bool = True


class Stage(NamedTuple):
    """Units that share kernel size and activation; the stride is the first unit's."""

    stride: int
    kernel_size: int
    act: ElementwiseName
    units: tuple[Unit, ...]


class Network(NamedTuple):
    """A table: stem width and activation, stages, strides of the CIFAR form, widths of the head's convolutions.

    The first of `head` is a block with batch norm, the second a convolution with activation alone. `head_attended`: a
    gate stands between them.
    """

    stem: int
    act: ElementwiseName
    stages: tuple[Stage, ...]
    cifar_strides: tuple[int, ...]
    head: Sequence[int] = ()
    head_attended: bool = False


def _units(*pairs: tuple[int, int], attended: int | None = None) -> tuple[Unit, ...]:
    """Units of (width, middle), of which the last `attended` carry attention (None: all)."""
    first = 0 if attended is None else len(pairs) - attended
    return tuple(Unit(width, middle, index >= first) for index, (width, middle) in enumerate(pairs))


V1 = Network(
    stem=32,
    act="relu",
    stages=(
        Stage(1, 3, "relu", (Unit(64),)),
        Stage(2, 3, "relu", (Unit(128),) * 2),
        Stage(2, 3, "relu", (Unit(256),) * 2),
        Stage(2, 3, "relu", (Unit(512),) * 6),
        Stage(2, 3, "relu", (Unit(1024),) * 2),
    ),
    cifar_strides=(1, 1, 2, 2, 2),
)
V2 = Network(
    stem=32,
    act="relu6",
    stages=(
        Stage(1, 3, "relu6", _units((16, 32))),
        Stage(2, 3, "relu6", _units((24, 96), (24, 144))),
        Stage(2, 3, "relu6", _units((32, 144), (32, 192), (32, 192))),
        Stage(2, 3, "relu6", _units(*[(64, 192), *[(64, 384)] * 3, (96, 384), *[(96, 576)] * 2])),
        Stage(2, 3, "relu6", _units((160, 576), (160, 960), (160, 960), (320, 960))),
    ),
    cifar_strides=(1, 1, 2, 2, 2),
    head=(1280,),
)
V3 = Network(
    stem=16,
    act="hard_swish",
    stages=(
        Stage(1, 3, "relu", _units((16, 16), attended=0)),
        Stage(2, 3, "relu", _units((24, 64), (24, 72), attended=0)),
        Stage(2, 5, "relu", _units((40, 72), (40, 120), (40, 120))),
        Stage(
            2,
            3,
            "hard_swish",
            _units((80, 240), (80, 200), (80, 184), (80, 184), (112, 480), (112, 672), attended=2),
        ),
        Stage(2, 5, "hard_swish", _units((160, 672), (160, 960), (160, 960))),
    ),
    cifar_strides=(1, 1, 2, 2, 2),
    head=(960, 1280),
)
V3_SMALL = Network(
    stem=16,
    act="hard_swish",
    stages=(
        Stage(2, 3, "relu", _units((16, 16))),
        Stage(2, 3, "relu", _units((24, 72), (24, 88), attended=0)),
        Stage(2, 5, "hard_swish", _units((40, 96), (40, 240), (40, 240), (48, 120), (48, 144))),
        Stage(2, 5, "hard_swish", _units((96, 288), (96, 576), (96, 576))),
    ),
    cifar_strides=(1, 2, 2, 2),
    head=(576, 1024),
    head_attended=True,
)
NETWORKS = {"v1": V1, "v2": V2, "v3": V3, "v3_small": V3_SMALL}
