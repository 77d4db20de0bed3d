"""MobileNet V1, V2 and V3 with attention in their units, as built by the authors of MAF.

Canonical names are the keys of their published checkpoints. All networks start with a batch norm of the image and end
in a 1x1 convolution. Widths are `int(width * width_multiplier)`, not rounded to multiples of 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field

from maam.errors import SpecError
from maam.spec.composites import composite
from maam.spec.containers import Model, Residual, Sequential
from maam.spec.fields import AsNumber, Flag, Size
from maam.spec.models.attention import GATES, Attention, StageGate, UnitGate
from maam.spec.node import Node
from maam.spec.pooling import GlobalPool
from maam.spec.presets import register_alias, register_variant
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Flatten


class Unit(NamedTuple):
    """A unit: its output width, its hidden width (0 for V1 units, which have none), and whether it has attention."""

    width: int
    middle: int = 0
    attended: bool = True


class Stage(NamedTuple):
    """Units with the same kernel size and activation; `stride` applies to the first unit."""

    stride: int
    kernel_size: int
    act: ElementwiseName
    units: tuple[Unit, ...]


class Network(NamedTuple):
    """The table of a network.

    Attributes:
        stem: the width of the first convolution.
        act: the activation of stem and head.
        stages: the stages.
        cifar_strides: the strides of the stages for images of 32x32.
        head: the widths of the convolutions after the stages: one with batch norm, then one without.
        head_attended: whether there is a gate between them.
    """

    stem: int
    act: ElementwiseName
    stages: tuple[Stage, ...]
    cifar_strides: tuple[int, ...]
    head: Sequence[int] = ()
    head_attended: bool = False


def _units(*pairs: tuple[int, int], attended: int | None = None) -> tuple[Unit, ...]:
    """Return units of (width, middle); the last `attended` ones have attention, all of them if it is None."""
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


def block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    act: ElementwiseName | None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> Sequential:
    """Return a convolution without bias, batch norm, and an activation unless it is None."""
    conv = _conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
    children: dict[str, Node] = {"conv": conv, "bn": BatchNorm2d(num_features=out_channels)}
    if act is not None:
        children["act"] = Activation(function=act)
    return Sequential(children=children)


def unnormalized(in_channels: int, out_channels: int, act: ElementwiseName) -> Sequential:
    """Return a 1x1 convolution without bias and an activation."""
    return Sequential(children={"conv": _conv(in_channels, out_channels, 1), "act": Activation(function=act)})


def _conv(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> Conv2d:
    return Conv2d(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=False,
        init="kaiming_uniform",
        **options,
    )


def classifier(in_channels: int, num_classes: int) -> Conv2d:
    """Return the 1x1 convolution that computes the logits."""
    return Conv2d(in_channels=in_channels, out_channels=num_classes, kernel_size=1, init="xavier_normal")


Multiplier = Annotated[float, Field(strict=True, gt=0, le=16), AsNumber]


@composite
def mobilenet(
    version: Literal["v1", "v2", "v3", "v3_small"],
    num_classes: Size = 1000,
    in_channels: Size = 3,
    *,
    width_multiplier: Multiplier = 1.0,
    cifar: Flag = False,
    attention: Attention | None = None,
    image_size: Size | None = None,
    name: str = "mobilenet",
) -> Model:
    """Return a MobileNet (V1, V2 or V3) with attention in its units, as built by the authors of MAF.

    It differs from the original MobileNets: a batch norm of the image comes first, widths are not rounded to multiples
    of 8, and the classifier is a 1x1 convolution. Parameter names are those of the published checkpoints.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), for any H and W.

    Args:
        version: the network: "v1", "v2", "v3" (V3-large) or "v3_small".
        num_classes: the number of classes, the length of the logits. Default: 1000.
        in_channels: the number of channels of the image. Default: 3.
        width_multiplier: the factor for all widths, above 0 and at most 16. It does not scale the last convolution of
            V3. Factors below 1 do not scale the first convolution of the head. Default: 1.0.
        cifar: whether to use the strides for images of 32x32. Default: False.
        attention: the layer, by the name of its function in `maam.spec`: "mafb" and "bam" after each stage except the
            last, and all others, such as "se", "eca" or "mafc", in the units that the network's table marks. None for
            no attention.
        image_size: height and width in `input_shape` of the spec, in pixels. Default: 224, or 32 with `cifar`.
        name: the name of the model, for display. Default: "mobilenet".

    Raises:
        SpecError: an argument is invalid, or the width multiplier leaves no channel.

    Example:
        >>> from maam import spec
        >>> spec.mobilenet("v3_small", num_classes=10, cifar=True, attention="mafc").num_parameters
        1136923
    """
    builder = _Builder(NETWORKS[version], width_multiplier, attention)
    size = (32 if cifar else 224) if image_size is None else image_size
    children = {
        "backbone": Sequential(children=builder.backbone(in_channels, cifar)),
        "classifier": Sequential(children={"conv": classifier(builder.channels, num_classes), "flatten": Flatten()}),
    }
    return Model(name=name, input_shape=(in_channels, size, size), children=children)


class _Builder:
    """Builder of a network; `channels` is the width of the last layer that was added."""

    def __init__(self, network: Network, width_multiplier: float, attention: Attention | None) -> None:
        self.network = network
        self.factor = width_multiplier
        self.attention = attention or ""
        self.channels = 0

    def backbone(self, in_channels: int, cifar: bool) -> dict[str, Node]:
        """Return all layers in front of the classifier."""
        network = self.network
        stem = self._width(network.stem)
        children: dict[str, Node] = {
            "data_bn": BatchNorm2d(num_features=in_channels),
            "init_conv": block(in_channels, stem, 3, network.act, stride=1 if cifar else 2),
        }
        self.channels = stem
        for index, stage in enumerate(network.stages):
            stride = network.cifar_strides[index] if cifar else stage.stride
            last = index == len(network.stages) - 1
            children[f"stage{index + 1}"] = self._stage(stage, stride, last)
        return {**children, **self._head()}

    def _stage(self, stage: Stage, stride: int, last: bool) -> Sequential:
        units: dict[str, Node] = {}
        for index, unit in enumerate(stage.units):
            units[f"unit{index + 1}"] = self._unit(stage, unit, stride if index == 0 else 1)
        if self.attention in get_args(StageGate) and not last:
            units["attention"] = GATES[self.attention](self.channels)
        return Sequential(children=units)

    def _unit(self, stage: Stage, unit: Unit, stride: int) -> Node:
        given, width = self.channels, self._width(unit.width)
        make = self._inverted if unit.middle else self._separable
        children = make(stage, given, width, self._width(unit.middle) if unit.middle else given, stride)
        if unit.attended:
            children |= self._gate("cbamm", width)
        self.channels = width
        return (Residual if given == width and stride == 1 else Sequential)(children=children)

    def _separable(self, stage: Stage, given: int, width: int, middle: int, stride: int) -> dict[str, Node]:
        """Return a V1 unit: a depthwise and a 1x1 block."""
        return {
            "conv_dw": block(given, given, stage.kernel_size, stage.act, stride=stride, groups=given),
            "conv_pw": block(given, width, 1, stage.act),
        }

    def _inverted(self, stage: Stage, given: int, width: int, middle: int, stride: int) -> dict[str, Node]:
        """Return a V2 or V3 unit: a wider 1x1 block, a depthwise block, and a 1x1 block without activation."""
        return {
            "conv1": block(given, middle, 1, stage.act),
            "conv2": block(middle, middle, stage.kernel_size, stage.act, stride=stride, groups=middle),
            "conv3": block(middle, width, 1, None),
        }

    def _head(self) -> dict[str, Node]:
        children: dict[str, Node] = {}
        head = self.network.head
        names: tuple[str, ...] = ("final_conv",) if len(head) == 1 else ("final_conv1", "final_conv2")
        if head:
            width = int(head[0] * max(self.factor, 1.0))
            children[names[0]] = block(self.channels, width, 1, self.network.act)
            if self.network.head_attended:
                children |= self._gate("final_se", width)
            self.channels = width
        children["final_pool"] = GlobalPool()
        if len(head) > 1:
            children[names[1]] = unnormalized(self.channels, head[1], self.network.act)
            self.channels = head[1]
        return children

    def _gate(self, name: str, channels: int) -> dict[str, Node]:
        return {name: GATES[self.attention](channels)} if self.attention in get_args(UnitGate) else {}

    def _width(self, width: int) -> int:
        scaled = int(width * self.factor)
        if scaled < 1:
            least = math.ceil(10**4 / width) / 10**4
            raise SpecError(f"width_multiplier: {self.factor} leaves no channel of {width}; use at least {least}")
        return scaled


for _version in NETWORKS:
    register_variant(mobilenet, f"mobilenet_{_version}", {"attention": None}, version=_version)
    register_variant(mobilenet, f"mafc_{_version}", {"attention": "mafc"}, version=_version)
for _version in ("v1", "v2", "v3"):  # the names on the authors' command line
    register_alias(f"MAFC{_version.upper()}", f"mafc_{_version}")
