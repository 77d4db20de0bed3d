"""The layers and models to compare: layers keep the shape of a map, models classify 32x32 images."""

from __future__ import annotations

from collections.abc import Callable

from maam.errors import SpecError
from maam.spec import (
    Activation,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalPool,
    Graph,
    Linear,
    Model,
    Node,
    Parallel,
    Rearrange,
    Residual,
    Sequential,
    cbam,
    maam,
    mafc,
    preset,
    se,
)

CIFAR = (3, 32, 32)


def conv_stage(channels: int) -> Sequential:
    """Return two 3x3 convolutions, each with batch norm and ReLU: a stage of a network without attention."""
    return Sequential(children={f"conv{index}": _conv_block(channels, channels) for index in (1, 2)})


def resnet20(num_classes: int = 10) -> Model:
    """Return ResNet-20 for CIFAR (arXiv 1512.03385, section 4.2), with 1x1 convolutions where the width changes."""
    children: dict[str, Node] = {"stem": _conv_block(3, 16)}
    in_channels = 16
    for stage, width in enumerate((16, 32, 64)):
        for unit in range(3):
            stride = 2 if stage and not unit else 1
            children[f"stage{stage + 1}_{unit + 1}"] = _basic_block(in_channels, width, stride)
            in_channels = width
    children |= {
        "pool": GlobalPool(),
        "flatten": Flatten(),
        "fc": Linear(in_features=in_channels, out_features=num_classes),
    }
    return Model(name="resnet20", input_shape=CIFAR, children=children)


def shufflenet_v2(num_classes: int = 10) -> Model:
    """Return ShuffleNetV2 x1.0 (arXiv 1807.11164) with stride 1 in the stem and no max pooling, for 32x32 images.

    The parameters have the names of torchvision's `shufflenet_v2_x1_0`.
    """
    children: dict[str, Node] = {"conv1": _numbered(3, [(24, 3, 1, 1, True)])}
    width = 24
    for stage, (wider, units) in enumerate(((116, 4), (232, 8), (464, 4)), 2):
        first = {"0": _shuffle_unit(width, wider)}
        others = {str(index): _shuffle_unit(wider, wider) for index in range(1, units)}
        children[f"stage{stage}"] = Sequential(children={**first, **others})
        width = wider
    children |= {
        "conv5": _numbered(width, [(1024, 1, 1, 1, True)]),
        "pool": GlobalPool(),
        "flatten": Flatten(),
        "fc": Linear(in_features=1024, out_features=num_classes),
    }
    return Model(name="shufflenet_v2", input_shape=CIFAR, children=children)


LAYERS: dict[str, Callable[[int], Node]] = {
    "conv stage": conv_stage,
    "MAAM": maam,
    "MAAM depthwise": lambda channels: maam(channels, depthwise=True),
    "MAF_C": mafc,
    "SE": se,
    "CBAM": cbam,
}
"""Layers for both frameworks, as functions of the number of channels; `benchmarks.cost.baselines` has more."""

MODELS: dict[str, Callable[[], Model]] = {
    "maam_cifar10": lambda: preset("maam_cifar10"),
    "maam_cifar10_2m3": lambda: preset("maam_cifar10_2m3"),
    "t_cnn": lambda: preset("t_cnn"),
    "mafc_v2": lambda: preset("mafc_v2", cifar=True, num_classes=10),
    "MobileNetV2": lambda: preset("mobilenet_v2", cifar=True, num_classes=10),
    "ResNet-20": resnet20,
    "ShuffleNetV2": shufflenet_v2,
}
"""Classifiers for both frameworks."""


def make_case(name: str, channels: int) -> Node | None:
    """Return the spec of a case, or None for a baseline without a spec."""
    if name in LAYERS:
        return LAYERS[name](channels)
    return MODELS[name]() if name in MODELS else None


def find_network(name: str) -> Model:
    """Return a network of `cost models`, or a preset."""
    return MODELS[name]() if name in MODELS else preset(name)


def check_cases(names: list[str], known: list[str]) -> None:
    """Raise `SpecError` for an unknown name."""
    if unknown := [name for name in names if name not in known]:
        raise SpecError(f"cases: no case {unknown[0]!r}; expected some of {', '.join(known)}")


def check_kinds(starts: list[str], known: list[str]) -> None:
    """Raise `SpecError` for a start that matches no known kind."""
    if unknown := [start for start in starts if not any(starts_with(kind, start) for kind in known)]:
        raise SpecError(f"kinds: no kind starts with {unknown[0][:60]!r}; expected some of {'; '.join(known)}")


def starts_with(kind: str, start: str) -> bool:
    """Return whether a kind begins with `start`; commas are ignored because they separate the starts in an option."""
    return kind.replace(",", "").startswith(start.replace(",", ""))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int = 1) -> Conv2d:
    return Conv2d(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )


def _conv_block(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, act: bool = True
) -> Sequential:
    conv = _conv(in_channels, out_channels, kernel_size, stride).replace(init="kaiming_normal")
    children: dict[str, Node] = {"conv": conv, "bn": BatchNorm2d(num_features=out_channels)}
    return Sequential(children={**children, **({"act": Activation(function="relu")} if act else {})})


def _basic_block(in_channels: int, width: int, stride: int) -> Sequential:
    main: dict[str, Node] = {
        "1": _conv_block(in_channels, width, 3, stride),
        "2": _conv_block(width, width, act=False),
    }
    added: Node = Residual(children=main)
    if in_channels != width:
        shortcut = _conv_block(in_channels, width, 1, stride, act=False)
        added = Parallel(children={"main": Sequential(children=main), "shortcut": shortcut})
    return Sequential(children={"sum": added, "act": Activation(function="relu")})


def _shuffle_unit(in_channels: int, width: int) -> Graph:
    """Return a unit of ShuffleNetV2: half of the channels are convolved; if the width changes, all in two branches."""
    half, changes = width // 2, in_channels != width
    stride, inner = (2, in_channels) if changes else (1, half)
    children: dict[str, Node] = {
        "branch2": _numbered(inner, [(half, 1, 1, 1, True), (half, 3, stride, half, False), (half, 1, 1, 1, True)]),
        "shuffle": Rearrange(pattern="(g=2 c) h w -> (c g) h w"),
    }
    if changes:
        children["branch1"] = _numbered(
            in_channels, [(in_channels, 3, stride, in_channels, False), (half, 1, 1, 1, True)]
        )
    rest, convolved = ("branch1(x)", "x") if changes else (f"x[0:{half}]", f"x[{half}:{width}]")
    return Graph(children=children, formula=f"shuffle(concat({rest}, branch2({convolved})))", in_channels=in_channels)


def _numbered(in_channels: int, convs: list[tuple[int, int, int, int, bool]]) -> Sequential:
    """Return convolutions (channels, kernel size, stride, groups, whether ReLU follows), each with batch norm."""
    layers: list[Node] = []
    for channels, kernel_size, stride, groups, act in convs:
        conv = _conv(in_channels, channels, kernel_size, stride, groups)
        layers += [conv, BatchNorm2d(num_features=channels), *([Activation(function="relu")] if act else [])]
        in_channels = channels
    return Sequential(children={str(index): layer for index, layer in enumerate(layers)})
