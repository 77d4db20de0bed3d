"""MobileNetV1, V2 and V3 with attention in their units, as the authors of MAF build them.

Canonical names are the keys of their published checkpoints. All networks normalise the image first and end in a 1x1
convolution; widths are `int(width * width_multiplier)`, without rounding to 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from maam.errors import SpecError
from maam.spec.composites import composite
from maam.spec.fields import AsNumber, Flag, Size
from maam.spec.layers import gates
from maam.spec.models.mobilenet_blocks import block, classifier, unnormalised
from maam.spec.models.mobilenet_tables import NETWORKS, Network, Stage, Unit
from maam.spec.node import Node
from maam.spec.presets import preset_signature, register_alias, register_preset
from maam.spec.primitives import (
    BatchNorm2d,
    Flatten,
    GlobalPool,
    Model,
    Residual,
    Sequential,
)

UnitGate = Literal["se", "cbam", "maf", "mafc"]
Attention = Literal[UnitGate, "mafb"]
Multiplier = Annotated[float, Field(strict=True, gt=0, le=16), AsNumber]
GATES: dict[str, Callable[[int], Node]] = {name: getattr(gates, name) for name in get_args(UnitGate)}


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
    """A MobileNet, (in_channels, H, W) to the logits (num_classes,); it takes images of other sizes too.

    Args:
        version: which one; "v3" is V3-large.
        num_classes: length of the logits.
        in_channels: channels of the image.
        width_multiplier: factor of all widths but the head's: V3's last one stays, the others grow only above 1.
        cifar: strides for images of 32x32.
        attention: a gate in the units listed for each network ("se", "cbam", "maf", "mafc"), or after each stage but
            the last ("mafb"); None: plain.
        image_size: height and width that the spec notes; 224, or 32 with `cifar`.
        name: a name for people to read.

    Raises:
        SpecError: an argument is invalid, or the width multiplier leaves no channel.
    """
    builder = _Builder(NETWORKS[version], width_multiplier, attention)
    size = (32 if cifar else 224) if image_size is None else image_size
    children = {
        "backbone": Sequential(children=builder.backbone(in_channels, cifar)),
        "classifier": Sequential(children={"conv": classifier(builder.channels, num_classes), "flatten": Flatten()}),
    }
    return Model(name=name, input_shape=(in_channels, size, size), children=children)


class _Builder:
    """Puts a network together; `channels` is the width that it has reached."""

    def __init__(self, network: Network, width_multiplier: float, attention: Attention | None) -> None:
        self.network = network
        self.factor = width_multiplier
        self.attention = attention
        self.channels = 0

    def backbone(self, in_channels: int, cifar: bool) -> dict[str, Node]:
        """Everything in front of the classifier."""
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
        if self.attention == "mafb" and not last:
            units["attention"] = gates.mafb(self.channels)
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
        """V1: a depthwise block, then a 1x1 block."""
        return {
            "conv_dw": block(given, given, stage.kernel_size, stage.act, stride=stride, groups=given),
            "conv_pw": block(given, width, 1, stage.act),
        }

    def _inverted(self, stage: Stage, given: int, width: int, middle: int, stride: int) -> dict[str, Node]:
        """V2 and V3: widen, depthwise, narrow without activation."""
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
            children[names[1]] = unnormalised(self.channels, head[1], self.network.act)
            self.channels = head[1]
        return children

    def _gate(self, name: str, channels: int) -> dict[str, Node]:
        return {name: GATES[self.attention](channels)} if self.attention in GATES else {}

    def _width(self, width: int) -> int:
        scaled = int(width * self.factor)
        if scaled < 1:
            least = math.ceil(10**4 / width) / 10**4
            raise SpecError(f"width_multiplier: {self.factor} leaves no channel of {width}; use at least {least}")
        return scaled


def _register(name: str, version: str, attention: Attention | None) -> None:
    settings = {"attention": attention}
    fixed = {"version": version, "name": name}

    def build(**overrides: Any) -> Model:
        return mobilenet(**{**fixed, **settings, **overrides})

    build.__signature__ = preset_signature(mobilenet, settings, fixed)  # type: ignore[attr-defined]
    register_preset(build, name)


for _version in NETWORKS:
    _register(f"mobilenet_{_version}", _version, None)
    _register(f"mafc_{_version}", _version, "mafc")
for _version in ("v1", "v2", "v3"):  # what the authors' command line calls them
    register_alias(f"MAFC{_version.upper()}", f"mafc_{_version}")
