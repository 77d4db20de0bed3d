"""The settings of PyTorch's layers for a port; see `maam.backend.settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from maam.backend.adapter import Setting
from maam.backend.settings import (
    Description,
    Field,
    InexpressibleError,
    Shapes,
    Sizes,
    axis_from_end,
    chain,
    flat_sides,
    output_sizes,
    per_axis,
    resize_field,
    same_padding,
    shown,
    sizes_field,
    spatial_axes,
    spread,
)


def read_settings(kind: str, module: Any, inputs: Shapes) -> dict[str, Setting]:
    """Return the settings of a module of a kind, by their names; none for kinds without settings."""
    return _TABLE[kind].read(module, inputs) if kind in _TABLE else {}


def write_module(kind: str, module: Any, values: Mapping[str, Any]) -> str:
    """Return the expression that builds the module with other values of some settings; "" for other kinds.

    Raises:
        InexpressibleError: PyTorch has no such layer.
    """
    if kind not in _TABLE or type(module).__module__.partition(".")[0] != "torch":
        return ""
    values = dict(values)
    after, before = _layers_after(kind, module, values), _pads_before(kind, module, values)
    frozen = values.get("affine") is False and module.affine
    if frozen:
        values["affine"] = True
    own = _TABLE[kind].write(f"nn.{type(module).__name__.removeprefix('Parametrized')}", module, values)
    return chain("nn.Sequential", [*before, f"{own}.requires_grad_(False)" if frozen else own, *after])


def _pads_before(kind: str, module: Any, values: dict[str, Any]) -> list[str]:
    """Return the layer that pads where the layer itself cannot pad both sides differently, and change its padding."""
    sides = values.get("padding", ())
    if kind not in ("convolution", "max pooling", "average pooling") or all(low == high for low, high in sides):
        return []
    count = spatial_axes(module)
    if kind == "average pooling" and not values.get("count_include_pad", module.count_include_pad):
        raise InexpressibleError("PyTorch's mean leaves out padding only if it is the same on both sides")
    if kind == "convolution":
        kernel, stride, dilation = (
            per_axis(values.get(name, getattr(module, name)), count) for name in ("kernel_size", "stride", "dilation")
        )
        if max(stride) == 1 and sides == same_padding((1,) * count, kernel, stride, dilation):
            values["padding"] = "same"
            return []
    values["padding"] = ((0, 0),) * count
    flat = shown(flat_sides(sides))
    return [
        f'nn.ConstantPad{count}d({flat}, float("-inf"))' if kind == "max pooling" else f"nn.ZeroPad{count}d({flat})"
    ]


def _layers_after(kind: str, module: Any, values: dict[str, Any]) -> list[str]:
    """Return the layers that must follow: those that cut off or append rows, and activations."""
    found = []
    sides, zeros = values.get("padding", ()), values.get("appended zeros", ())
    if kind == "transposed convolution" and any(high > low for low, high in sides):
        values["padding"] = tuple((low, min(low, high)) for low, high in sides)
        cut = [(0, min(low - high, 0)) for low, high in sides]
        found.append(f"nn.ZeroPad{spatial_axes(module)}d({shown(flat_sides(cut))})")  # a negative number cuts off
    if any(zeros):
        found.append(f"nn.ZeroPad{spatial_axes(module)}d({shown(flat_sides([(0, more) for more in zeros]))})")
    if values.get("activation"):
        found.append(f"nn.{values['activation']}()")
    return found


def _plain(name: str, default: Any = None) -> Field:
    return Field(name, attrgetter(name), default)


def _sides(value: Any, module: Any, inputs: Shapes) -> Any:
    """Return the padding on both sides of each axis."""
    count = spatial_axes(module)
    if value == "same":
        kernel, dilation = per_axis(module.kernel_size, count), per_axis(module.dilation, count)
        return same_padding((1,) * count, kernel, (1,) * count, dilation)
    return tuple((p, p) for p in ((0,) * count if value == "valid" else per_axis(value, count)))


def _transposed_sides(value: Any, module: Any, inputs: Shapes) -> Any:
    """Return the rows that are cut off on both sides; `output_padding` cuts off fewer at the end."""
    more = per_axis(module.output_padding, spatial_axes(module))
    return tuple((low, high - add) for (low, high), add in zip(_sides(value, module, inputs), more, strict=True))


def _own_padding(value: Any, _module: Any) -> dict[str, Any]:
    if value == "same":
        return {"padding": value}
    own = tuple(low for low, _ in value)
    return {"padding": own} if any(own) else {}


def _kept_padding(module: Any) -> dict[str, Any]:
    names = [name for name in ("padding", "output_padding") if hasattr(module, name)]
    return {name: own for name in names if shown(own := getattr(module, name)) not in ("0", '"valid"')}


def _own_transposed_padding(value: Any, _module: Any) -> dict[str, Any]:
    own, more = tuple(low for low, _ in value), tuple(low - high for low, high in value)
    return {name: v for name, v in (("padding", own), ("output_padding", more)) if any(v)}


def _transposed_text(module: Any) -> str:
    return f"padding={shown(module.padding)}, output_padding={shown(module.output_padding)}"


def _axis(value: Any, _module: Any, inputs: Shapes) -> Any:
    if value is None and inputs:  # PyTorch's rule for a softmax without an axis
        value = 0 if len(inputs[0]) in (0, 1, 3) else 1
    return value if value is None else axis_from_end(value, inputs)


def _statistics(module: Any) -> str:
    return "of the batch in train mode" if module.track_running_stats else "of the batch"


def _statistics_text(module: Any) -> str:
    return f"track_running_stats={module.track_running_stats}"


def _trained(value: Any, module: Any, _inputs: Shapes) -> bool:
    """Return whether weight and bias are trained; a frozen norm behaves like one without them."""
    return bool(value and module.weight.requires_grad)


def _own_statistics(value: str, module: Any) -> dict[str, Any]:
    """Return `track_running_stats`, whose default is False in instance norms only."""
    if value == "running":
        raise InexpressibleError("PyTorch uses running statistics in eval mode only: call eval() of this layer")
    default = not type(module).__name__.startswith("InstanceNorm")
    tracked = value != "of the batch"
    return {} if tracked == default else {"track_running_stats": tracked}


def _own_affine(value: bool, module: Any) -> dict[str, Any]:
    """Return `affine`, whose default is False in instance norms only."""
    default = not type(module).__name__.startswith("InstanceNorm")
    return {} if value == default else {"affine": value}


def _own_size(value: Any, _module: Any) -> dict[str, Any]:
    return {"size": value} if value.scale is None else {"scale_factor": value.scale}


def _affine_text(module: Any) -> str:
    frozen = module.affine and not module.weight.requires_grad
    return f"affine={module.affine}{', frozen' if frozen else ''}"


_KERNEL_SIZE = Field("kernel_size", attrgetter("kernel_size"), to_value=spread, positional=True)
_PADDING = Field("padding", attrgetter("padding"), 0, to_value=_sides, to_own=_own_padding, to_keep=_kept_padding)
_KERNEL = (sizes_field("stride", 1), _PADDING)
_POOLED = (_KERNEL_SIZE, sizes_field("stride", None), _PADDING)  # the default stride is the size of the kernel
_AFFINE = Field(
    "affine",
    attrgetter("affine"),
    to_value=_trained,
    to_own=_own_affine,
    describe=_affine_text,
    to_keep=lambda module: _own_affine(module.affine, module),
)
_NORM = (_plain("eps", 1e-5), _AFFINE)
_USE = Field(
    "use of statistics",
    _statistics,
    describe=_statistics_text,
    to_own=_own_statistics,
)
_RECURRENT = Description(
    (_plain("num_layers", 1), _plain("batch_first", False), _plain("bidirectional", False), _plain("dropout", 0.0)),
    attrgetter("input_size", "hidden_size"),
    lambda module: {} if module.bias else {"bias": False},
)


def _bias(module: Any) -> dict[str, Any]:
    return {} if module.bias is not None else {"bias": False}


def _own_axes(value: int, module: Any) -> dict[str, Any]:
    if value == len(module.normalized_shape):
        return {}
    raise InexpressibleError(
        "PyTorch's weight and bias have the shape of the normalized axes: rewrite the layer by hand"
    )


def _norm_extra(module: Any) -> dict[str, Any]:
    if not module.elementwise_affine:
        return {"elementwise_affine": False}
    return _bias(module)


def _one(name: str) -> Callable[[Any], tuple[Any, ...]]:
    return lambda module: (getattr(module, name),)


_CHANNEL_COUNT = Field("num_channels", attrgetter("num_channels"), positional=True)
_SIDES = Field("padding", lambda m: Sizes(m.padding), positional=True)
_FILL = Field("value", attrgetter("value"), positional=True)
_CONVOLUTION = (
    _KERNEL_SIZE,
    *_KERNEL,
    sizes_field("dilation", 1),
    _plain("groups", 1),
    _plain("padding_mode", "zeros"),
)
_TABLE: dict[str, Description] = {
    "convolution": Description(_CONVOLUTION, attrgetter("in_channels", "out_channels"), _bias),
    "transposed convolution": Description(
        (
            _KERNEL_SIZE,
            sizes_field("stride", 1),
            Field(
                "padding",
                attrgetter("padding"),
                to_value=_transposed_sides,
                to_own=_own_transposed_padding,
                describe=_transposed_text,
                to_keep=_kept_padding,
            ),
            Field("appended zeros", lambda m: (0,) * spatial_axes(m), describe=lambda _: "none", to_own=lambda *_: {}),
            sizes_field("dilation", 1),
            _plain("groups", 1),
        ),
        attrgetter("in_channels", "out_channels"),
        _bias,
    ),
    "batch norm": Description((_plain("eps", 1e-5), _plain("momentum", 0.1), _AFFINE, _USE), _one("num_features")),
    "instance norm": Description((*_NORM, _USE), _one("num_features")),
    "group norm": Description(
        (Field("num_groups", attrgetter("num_groups"), positional=True), _CHANNEL_COUNT, *_NORM),
    ),
    "layer norm": Description(
        (
            _plain("eps", 1e-5),
            Field("normalized axes", lambda m: len(m.normalized_shape), to_own=_own_axes, to_keep=lambda _: {}),
        ),
        lambda m: (Sizes(m.normalized_shape) if len(m.normalized_shape) > 1 else m.normalized_shape[0],),
        _norm_extra,
    ),
    "embedding": Description((_plain("padding_idx"),), attrgetter("num_embeddings", "embedding_dim")),
    "linear": Description(
        (Field("activation", lambda _: "", describe=lambda _: "none", to_own=lambda *_: {}),),
        attrgetter("in_features", "out_features"),
        _bias,
    ),
    "leaky relu": Description((_plain("negative_slope", 0.01),)),
    "gelu": Description((_plain("approximate", "none"),)),
    "elu": Description((_plain("alpha", 1.0),)),
    "celu": Description((_plain("alpha", 1.0),)),
    "hardtanh": Description((_plain("min_val", -1.0), _plain("max_val", 1.0))),
    "softmax": Description((Field("dim", attrgetter("dim"), to_value=_axis),)),
    "log softmax": Description((Field("dim", attrgetter("dim"), to_value=_axis),)),
    "dropout": Description((_plain("p", 0.5),)),
    "dropout of channels": Description((_plain("p", 0.5),)),
    "max pooling": Description((*_POOLED, sizes_field("dilation", 1), _plain("ceil_mode", False))),
    "average pooling": Description(
        (
            *_POOLED,
            _plain("ceil_mode", False),
            _plain("count_include_pad", True),
            Field("divisor_override", lambda m: getattr(m, "divisor_override", None)),
        )
    ),
    "adaptive average pooling": Description((Field("output_size", attrgetter("output_size"), to_value=output_sizes),)),
    "adaptive max pooling": Description((Field("output_size", attrgetter("output_size"), to_value=output_sizes),)),
    "upsample": Description(
        (
            resize_field(_own_size),
            _plain("mode", "nearest"),
            Field("align_corners", lambda m: bool(m.align_corners), False),
        )
    ),
    "flatten": Description((_plain("start_dim", 1), Field("end_dim", attrgetter("end_dim"), -1, to_value=_axis))),
    "pixelshuffle": Description((Field("upscale_factor", attrgetter("upscale_factor"), positional=True),)),
    "pixelunshuffle": Description((Field("downscale_factor", attrgetter("downscale_factor"), positional=True),)),
    "softshrink": Description((_plain("lambd", 0.5),)),
    "glu": Description((Field("dim", attrgetter("dim"), -1, to_value=_axis),)),
    "threshold": Description(tuple(Field(name, attrgetter(name), positional=True) for name in ("threshold", "value"))),
    **{
        f"{mode}pad{count}d": Description((_SIDES,))
        for mode in ("reflection", "replication", "zero")
        for count in "123"
    },
    **{f"constantpad{count}d": Description((_SIDES, _FILL)) for count in "123"},
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": Description((*_RECURRENT.fields, _plain("nonlinearity", "tanh")), _RECURRENT.leading),
    "attention": Description(
        (_plain("batch_first", False), _plain("dropout", 0.0), Field("num_heads", attrgetter("num_heads"))),
        _one("embed_dim"),
        lambda module: {} if module.in_proj_bias is not None else {"bias": False},
    ),
}
