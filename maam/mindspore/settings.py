"""The settings of MindSpore's layers for a port, in PyTorch's meaning; see `maam.backend.settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
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
    per_axis,
    resized,
    same_padding,
    shown,
)

_PAD_CELLS = {"zeros": "ConstantPad", "reflect": "ReflectionPad", "replicate": "ReplicationPad"}


def read_settings(kind: str, cell: Any, inputs: Shapes) -> dict[str, Setting]:
    """Return the settings of a cell of a kind, by PyTorch's names; none for kinds and variants without a table."""
    try:
        return _TABLE[kind].read(cell, inputs) if kind in _TABLE else {}
    except AttributeError:  # the cells of mindspore.mint have other attributes
        return {}


def write_cell(kind: str, cell: Any, values: Mapping[str, Any], inputs: Shapes = ()) -> str:
    """Return the expression that builds the cell with other values of some settings; "" for other kinds and variants.

    Raises:
        InexpressibleError: MindSpore has no such cell.
    """
    if kind not in _TABLE:
        return ""
    own = next(base for base in type(cell).__mro__ if base.__module__.partition(".")[0] == "mindspore")
    values = dict(values)
    if (count := values.get("normalized axes", 1)) > 1:  # MindSpore takes -1 or an axis from the start only
        values["normalized axes"] = (len(inputs[0]) - count, len(inputs[0]) - len(cell.normalized_shape))
    try:
        before = _pads_before(kind, cell, values)
        return chain("nn.SequentialCell", [*before, _TABLE[kind].write(f"nn.{own.__name__}", cell, values)])
    except AttributeError:  # the cells of mindspore.mint have other attributes
        return ""


def _pads_before(kind: str, cell: Any, values: dict[str, Any]) -> list[str]:
    """Return the cell that pads where the convolution itself cannot, and change the padding of the convolution."""
    sides, mode, count = values.get("padding", ()), values.get("padding_mode", "zeros"), axes(cell)
    alike = count > 1 or all(low == high for low, high in sides)
    if kind != "convolution" or not any(map(any, sides)) or (mode == "zeros" and alike):
        return []
    if mode not in _PAD_CELLS:
        raise InexpressibleError(f'MindSpore has no layer for padding_mode="{mode}"')
    values["padding"] = ((0, 0),) * count
    fill = ", 0.0" if mode == "zeros" else ""
    return [f"nn.{_PAD_CELLS[mode]}{count}d({shown(flat_sides(sides))}{fill})"]


def axes(cell: Any) -> int:
    """Return the number of spatial axes, from the name of the class."""
    name = type(cell).__name__
    digits = [character for base in type(cell).__mro__ for character in base.__name__ if character in "123"]
    return int(digits[0]) if digits and name else 2


def _plain(name: str, argument: str = "", default: Any = None, attribute: str = "") -> Field:
    return Field(name, attrgetter(attribute or argument or name), default, argument)


def _spread(value: Any, cell: Any, _inputs: Shapes) -> tuple[int, ...]:
    return per_axis(value, axes(cell))


def _sizes(name: str, default: Any, attribute: str = "") -> Field:
    return Field(name, attrgetter(attribute or name), default, to_value=_spread)


def _given(cell: Any) -> tuple[tuple[int, int], ...]:
    """Return the padding of mode "pad" on both sides of each axis, from any of the forms that MindSpore takes."""
    count = axes(cell)
    own = getattr(cell, "padding", None)
    if own is None:
        pool = getattr(cell, "max_pool", None) or cell.avg_pool
        own = next(v for v in (getattr(pool, n, None) for n in ("pads", "pad_list", "pad")) if v is not None)
    if isinstance(own, int):
        return ((own, own),) * count
    if len(own) % 2 == 0 and len(own) >= 2 * count:
        own = own[-2 * count :]
        return tuple((int(own[2 * i]), int(own[2 * i + 1])) for i in range(count))
    return tuple((p, p) for p in per_axis(own, count))


def _mode(cell: Any) -> str:
    return str(getattr(cell, "pad_mode", "pad")).lower()


def _sides(_value: Any, cell: Any, inputs: Shapes) -> Any:
    """Return the padding on both sides of each axis; that of mode "same" follows from the sizes of the input."""
    count = axes(cell)
    if _mode(cell) == "pad":
        return _given(cell)
    if _mode(cell) == "valid":
        return ((0, 0),) * count
    kernel, stride = per_axis(cell.kernel_size, count), per_axis(cell.stride, count)
    dilation = per_axis(getattr(cell, "dilation", 1), count)
    if inputs:
        return same_padding(inputs[0][-count:], kernel, stride, dilation)
    return same_padding((1,) * count, kernel, (1,) * count, dilation)


def _transposed_sides(_value: Any, cell: Any, _inputs: Shapes) -> Any:
    """Return the rows that are cut off on both sides."""
    count = axes(cell)
    if _mode(cell) != "same":
        return _given(cell) if _mode(cell) == "pad" else ((0, 0),) * count
    sizes = zip(*(per_axis(v, count) for v in (cell.kernel_size, cell.stride, cell.dilation)), strict=True)
    totals = [max(d * (k - 1) + 1 - s, 0) for k, s, d in sizes]
    return tuple((total // 2, total - total // 2) for total in totals)


def _padding_text(cell: Any) -> str:
    mode = _mode(cell)
    if mode != "pad":
        return f'pad_mode="{mode}"'
    own = _given(cell)
    flat = [side for pair in own for side in pair]
    return f'pad_mode="pad", padding={shown(tuple(flat))}'


def _own_padding(value: Any, cell: Any) -> dict[str, Any]:
    """Return `pad_mode` and `padding`; pooling takes one number for both sides of an axis."""
    flat = tuple(side for pair in value for side in pair)
    if not any(flat):
        return {} if _pools(cell) else {"pad_mode": "valid"}
    if min(flat) < 0:
        raise InexpressibleError("MindSpore does not compute rows beyond the last one that the kernel reaches")
    if (_pools(cell) or len(value) == 1) and any(low != high for low, high in value):
        raise InexpressibleError("MindSpore pads this layer by the same number on both sides")
    if len(value) == 1:
        return {"pad_mode": "pad", "padding": flat[0]}
    return {"pad_mode": "pad", "padding": tuple(low for low, _ in value) if _pools(cell) else flat}


def _kept_padding(cell: Any) -> dict[str, Any]:
    """Return the arguments for the padding of a cell; mode "same" keeps its name, because its rows depend on sizes."""
    if _mode(cell) == "same":
        return {"pad_mode": "same"} if _pools(cell) else {}
    return _own_padding(_given(cell) if _mode(cell) == "pad" else (), cell)


def _pools(cell: Any) -> bool:
    return hasattr(cell, "max_pool") or hasattr(cell, "avg_pool")


def _rest(cell: Any) -> tuple[int, ...]:
    return per_axis(getattr(cell, "output_padding", 0), axes(cell))


def _pool(name: str, default: Any) -> Field:
    """Return a field of pooling whose value is in MindSpore's operator."""

    def read(cell: Any) -> Any:
        operator = getattr(cell, "max_pool", None) or cell.avg_pool
        return getattr(operator, name, default) or default

    def write(value: Any, _cell: Any) -> dict[str, Any]:
        own = shown(value) if isinstance(value, tuple) else value
        return {} if own in (default, str(default)) else {"pad_mode": "pad", name: value}  # only this mode takes it

    spread = _spread if name == "dilation" else Field("", read).to_value
    return Field(name, read, default, to_value=spread, to_own=write)


def _include(cell: Any) -> bool:
    """Return whether the mean counts padding; the operator for modes "same" and "valid" does not."""
    return bool(getattr(cell.avg_pool, "count_include_pad", _mode(cell) == "valid"))


def _statistics(cell: Any) -> str:
    own = getattr(cell, "use_batch_statistics", True)
    return "of the batch in train mode" if own is None else "of the batch" if own else "running"


def _own_statistics(value: str, _cell: Any) -> dict[str, Any]:
    return {"of the batch": {"use_batch_statistics": True}, "running": {"use_batch_statistics": False}}.get(value, {})


def _own_instance_statistics(value: str, _cell: Any) -> dict[str, Any]:
    if value != "of the batch":
        raise InexpressibleError("MindSpore's instance norm always uses the statistics of the batch")
    return {}


def _own_momentum(value: float | None, _cell: Any) -> dict[str, Any]:
    if value is None:
        raise InexpressibleError("MindSpore has no momentum=None, the mean over all batches")
    return {} if abs(value - 0.1) < 1e-9 else {"momentum": 1 - value}


def _axis(value: Any, _cell: Any, inputs: Shapes) -> Any:
    """Return an axis counted from the end; MindSpore keeps some as a tuple of one."""
    return axis_from_end(value[0] if isinstance(value, tuple) else value, inputs)


def _normalized(begin: int, cell: Any, inputs: Shapes) -> int:
    if begin < 0:
        return -begin
    return len(inputs[0]) - begin if inputs else len(cell.normalized_shape)


def _own_axes(value: Any, _cell: Any) -> dict[str, Any]:
    """Return the first axes that are normalized and scaled; both are -1 by default."""
    return {} if value == 1 else {"begin_norm_axis": value[0], "begin_params_axis": value[1]}


def _kept_axes(cell: Any) -> dict[str, Any]:
    names = ("begin_norm_axis", "begin_params_axis")
    return {name: own for name in names if (own := getattr(cell, name)) != -1}


def _own_size(value: Any, _cell: Any) -> dict[str, Any]:
    if value.scale is None:
        return {"size": value}
    scale = value.scale if isinstance(value.scale, (tuple, list)) else (value.scale,)
    factors = tuple(map(float, scale))
    return {"scale_factor": factors if len(factors) > 1 else factors[0], "recompute_scale_factor": True}


def _kept_size(cell: Any) -> dict[str, Any]:
    names = ("size", "scale_factor", "recompute_scale_factor")
    return {name: Sizes(own) if name == "size" else own for name in names if (own := getattr(cell, name)) is not None}


def _size_text(cell: Any) -> str:
    return ", ".join(f"{name}={shown(own)}" for name, own in _kept_size(cell).items())


def _resized(size: Any, cell: Any, inputs: Shapes) -> Any:
    return resized(size, cell.scale_factor, inputs)


def _mirrored(cell: Any) -> Sizes:
    """Return the padding in PyTorch's order, the last axis first; MindSpore keeps pairs for the first axis first."""
    own = cell.padding
    return Sizes(flat_sides(own) if isinstance(own[0], (tuple, list)) else own)


def _dropped(cell: Any) -> float:
    own = getattr(cell, "p", None)
    return float(1 - cell.keep_prob if own is None else own)


def _dropped_text(cell: Any) -> str:
    own = getattr(cell, "p", None)
    return (
        f"keep_prob={shown(cell.keep_prob)}"
        if own is None and not hasattr(cell, "dropout2d")
        else f"p={shown(_dropped(cell))}"
    )


def _output_size(cell: Any) -> Any:
    operator = next((v for n in ("adaptive_avgpool2d", "adaptive_avg_pool3d") if (v := getattr(cell, n, None))), None)
    return operator.output_size if operator is not None else cell.output_size


def _output_sizes(value: Any, cell: Any, inputs: Shapes) -> Any:
    count = axes(cell)
    own = (value,) * count if not isinstance(value, (tuple, list)) else tuple(value)
    return tuple(inputs[0][i - count] if v in (None, -1) and inputs else v for i, v in enumerate(own))


def _bias(cell: Any) -> dict[str, Any]:
    """Return `has_bias` of a convolution, whose default is False."""
    return {"has_bias": True} if cell.has_bias else {}


def _has_bias(cell: Any) -> dict[str, Any]:
    """Return `has_bias` of a layer whose default is True."""
    return {} if cell.has_bias else {"has_bias": False}


def _one(name: str) -> Callable[[Any], tuple[Any, ...]]:
    return lambda cell: (getattr(cell, name),)


def _activation(cell: Any) -> str:
    """Return the name of the activation's class; empty if there is none."""
    return str(getattr(cell.activation, "cls_name", "") or "")


def _kept_activation(cell: Any) -> dict[str, Any]:
    return {"activation": _activation(cell).lower()} if _activation(cell) else {}


def _trained(cell: Any) -> bool:
    return bool(cell.gamma.requires_grad)


_PADDING = Field(
    "padding", _padding_text, to_value=_sides, to_own=_own_padding, to_keep=_kept_padding, describe=_padding_text
)
_CUT = replace(_PADDING, to_value=_transposed_sides)
_KERNEL_SIZE = Field("kernel_size", attrgetter("kernel_size"), to_value=_spread, positional=True)
_CONVOLUTION = (
    _KERNEL_SIZE,
    _sizes("stride", 1),
    _PADDING,
    _sizes("dilation", 1),
    _plain("groups", "group", 1),
    Field("padding_mode", lambda _: "zeros", describe=lambda _: "zeros", to_own=lambda *_: {}),
)
_AFFINE = Field("affine", _trained, True)
_RECURRENT = Description(
    (
        _plain("num_layers", default=1),
        _plain("batch_first", default=False),
        _plain("bidirectional", default=False),
        _plain("dropout", default=0.0),
    ),
    lambda cell: (cell.w_ih_list[0].shape[1], cell.hidden_size),
    _has_bias,
)


def _primitive(name: str, argument: str, default: Any, attribute: str) -> Field:
    """Return a field whose value is in the cell's operator."""
    return Field(name, attrgetter(attribute), default, argument)


def _first(name: str) -> Field:
    """Return a field that is written without its name."""
    return Field(name, attrgetter(name), positional=True)


_SIDES = Field("padding", _mirrored, positional=True)


def _axis_field(attribute: str) -> Field:
    return Field("dim", attrgetter(attribute), -1, "axis", to_value=_axis)


_TABLE: dict[str, Description] = {
    "convolution": Description(_CONVOLUTION, attrgetter("in_channels", "out_channels"), _bias),
    "transposed convolution": Description(
        (
            _KERNEL_SIZE,
            _sizes("stride", 1),
            _CUT,
            Field(
                "appended zeros",
                _rest,
                0,
                describe=lambda cell: f"output_padding={shown(_rest(cell))} appends zeros",
                to_own=lambda value, _: {"output_padding": value} if any(value) else {},
            ),
            _sizes("dilation", 1),
            _plain("groups", "group", 1),
        ),
        attrgetter("in_channels", "out_channels"),
        _bias,
    ),
    "batch norm": Description(
        (
            _plain("eps", default=1e-5),
            Field(
                "momentum",
                lambda cell: 1 - cell.momentum,
                to_value=lambda value, *_: 1 - value,
                to_own=_own_momentum,
            ),
            _AFFINE,
            Field(
                "use of statistics",
                _statistics,
                describe=lambda cell: f"use_batch_statistics={getattr(cell, 'use_batch_statistics', None)}",
                to_own=_own_statistics,
            ),
        ),
        _one("num_features"),
    ),
    "instance norm": Description(
        (
            _plain("eps", default=1e-5),
            _AFFINE,
            Field(
                "use of statistics",
                lambda _: "of the batch",
                describe=lambda _: "of the batch",
                to_own=_own_instance_statistics,
            ),
        ),
        _one("num_features"),
    ),
    "group norm": Description(
        (*map(_first, ("num_groups", "num_channels")), _plain("eps", default=1e-5), _AFFINE),
    ),
    "layer norm": Description(
        (
            _plain("eps", "epsilon", 1e-7),
            Field(
                "normalized axes",
                attrgetter("begin_norm_axis"),
                to_value=_normalized,
                to_own=_own_axes,
                describe=lambda cell: f"begin_norm_axis={cell.begin_norm_axis}",
                to_keep=_kept_axes,
            ),
        ),
        lambda cell: (Sizes(cell.normalized_shape),),
    ),
    "embedding": Description((_plain("padding_idx"),), attrgetter("vocab_size", "embedding_size")),
    "linear": Description(
        (Field("activation", _activation, to_own=lambda *_: {}, to_keep=_kept_activation),),
        attrgetter("in_channels", "out_channels"),
        _has_bias,
    ),
    "leaky relu": Description((_plain("negative_slope", "alpha", 0.2),)),
    "gelu": Description(
        (
            Field(
                "approximate",
                attrgetter("approximate"),
                describe=lambda cell: f"approximate={cell.approximate == 'tanh'}",
                to_own=lambda value, _: {} if value == "tanh" else {"approximate": False},
            ),
        )
    ),
    "elu": Description((_primitive("alpha", "", 1.0, "elu.alpha"),)),
    "celu": Description((_primitive("alpha", "", 1.0, "celu.alpha"),)),
    "hardtanh": Description((_plain("min_val", default=-1.0), _plain("max_val", default=1.0))),
    "softmax": Description((_axis_field("softmax.axis"),)),
    "log softmax": Description((_axis_field("log_softmax.axis"),)),
    "dropout": Description((Field("p", _dropped, describe=_dropped_text),)),
    "dropout of channels": Description((Field("p", _dropped, 0.5, describe=_dropped_text),)),
    "max pooling": Description(
        (
            _KERNEL_SIZE,
            _sizes("stride", 1),
            _PADDING,
            _pool("dilation", 1),
            _pool("ceil_mode", False),
        )
    ),
    "average pooling": Description(
        (
            _KERNEL_SIZE,
            _sizes("stride", 1),
            _PADDING,
            _pool("ceil_mode", False),
            Field("count_include_pad", _include, True),
            _pool("divisor_override", None),
        )
    ),
    "adaptive average pooling": Description((Field("output_size", _output_size, to_value=_output_sizes),)),
    "adaptive max pooling": Description((Field("output_size", _output_size, to_value=_output_sizes),)),
    "upsample": Description(
        (
            Field("size", attrgetter("size"), None, "", _resized, _own_size, _size_text, to_keep=_kept_size),
            _plain("mode", default="nearest"),
            Field("align_corners", lambda cell: bool(cell.align_corners), False),
        )
    ),
    "flatten": Description(
        (_plain("start_dim", default=1), Field("end_dim", attrgetter("end_dim"), -1, to_value=_axis))
    ),
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
    "attention": Description(
        (_plain("batch_first", default=False), _plain("dropout", default=0.0), _plain("num_heads")),
        _one("embed_dim"),
        lambda cell: {} if cell.in_proj_bias is not None else {"has_bias": False},
    ),
    "pixelshuffle": Description((_first("upscale_factor"),)),
    "pixelunshuffle": Description((_first("downscale_factor"),)),
    "softshrink": Description((_primitive("lambd", "", 0.5, "softshrink.lambd"),)),
    "glu": Description((Field("dim", attrgetter("dim"), -1, "axis", to_value=_axis),)),
    "threshold": Description((_first("threshold"), _first("value"))),
    **{
        f"{mode}pad{count}d": Description((_SIDES,))
        for mode in ("reflection", "replication", "zero")
        for count in "123"
    },
    **{f"constantpad{count}d": Description((_SIDES, _first("value"))) for count in "123"},
}
