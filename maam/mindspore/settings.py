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
    output_sizes,
    per_axis,
    resize_field,
    shown,
    sizes_field,
    spatial_axes,
    spread,
)
from maam.mindspore.padding import (
    includes_padding,
    kept_padding,
    own_padding,
    padding_text,
    pads_before,
    pooling_field,
    sides,
    transposed_sides,
)


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
    own = next(base for base in type(cell).__mro__ if base.__module__.partition(".")[0] == "mindspore")
    if kind not in _TABLE or own.__name__.endswith("Ext"):  # a class of mindspore.mint
        return ""
    values = dict(values)
    if (count := values.get("normalized axes", 1)) > 1:  # MindSpore takes -1 or an axis from the start only
        values["normalized axes"] = (len(inputs[0]) - count, len(inputs[0]) - len(cell.normalized_shape))
    try:
        before = pads_before(kind, cell, values)
        return chain("nn.SequentialCell", [*before, _TABLE[kind].write(f"nn.{own.__name__}", cell, values)])
    except AttributeError:  # the cells of mindspore.mint have other attributes
        return ""


def _plain(name: str, argument: str = "", default: Any = None, attribute: str = "") -> Field:
    return Field(name, attrgetter(attribute or argument or name), default, argument)


def _rest(cell: Any) -> tuple[int, ...]:
    return per_axis(getattr(cell, "output_padding", 0), spatial_axes(cell))


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


def _nonlinearity(cell: Any) -> str:
    """Return the nonlinearity of an RNN, which MindSpore keeps as the class of a part."""
    return "relu" if type(cell.rnn).__name__.endswith("Relu") else "tanh"


def _untrained_row(value: Any, cell: Any, _inputs: Shapes) -> Any:
    """Return None for `nn.Embedding`, whose padding_idx only sets the first values of a row that is then trained."""
    return None if hasattr(cell, "vocab_size") else value


def _own_index(value: int | None, _cell: Any) -> dict[str, Any]:
    if value is not None:
        raise InexpressibleError("MindSpore trains the row of padding_idx: set the gradient of this row to zero")
    return {}


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
    "padding", padding_text, to_value=sides, to_own=own_padding, to_keep=kept_padding, describe=padding_text
)
_CUT = replace(_PADDING, to_value=transposed_sides)
_KERNEL_SIZE = Field("kernel_size", attrgetter("kernel_size"), to_value=spread, positional=True)
_CONVOLUTION = (
    _KERNEL_SIZE,
    sizes_field("stride", 1),
    _PADDING,
    sizes_field("dilation", 1),
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
            sizes_field("stride", 1),
            _CUT,
            Field(
                "appended zeros",
                _rest,
                0,
                describe=lambda cell: f"output_padding={shown(_rest(cell))} appends zeros",
                to_own=lambda value, _: {"output_padding": value} if any(value) else {},
            ),
            sizes_field("dilation", 1),
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
    "embedding": Description(
        (
            Field(
                "padding_idx",
                attrgetter("padding_idx"),
                to_value=_untrained_row,
                to_own=_own_index,
                to_keep=lambda cell: {} if cell.padding_idx is None else {"padding_idx": cell.padding_idx},
            ),
        ),
        attrgetter("vocab_size", "embedding_size"),
    ),
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
            sizes_field("stride", 1),
            _PADDING,
            pooling_field("dilation", 1),
            pooling_field("ceil_mode", False),
        )
    ),
    "average pooling": Description(
        (
            _KERNEL_SIZE,
            sizes_field("stride", 1),
            _PADDING,
            pooling_field("ceil_mode", False),
            Field("count_include_pad", includes_padding, True),
            pooling_field("divisor_override", None),
        )
    ),
    "adaptive average pooling": Description((Field("output_size", _output_size, to_value=output_sizes),)),
    "adaptive max pooling": Description((Field("output_size", _output_size, to_value=output_sizes),)),
    "upsample": Description(
        (
            resize_field(_own_size),
            _plain("mode", default="nearest"),
            Field("align_corners", lambda cell: bool(cell.align_corners), False),
        )
    ),
    "flatten": Description(
        (_plain("start_dim", default=1), Field("end_dim", attrgetter("end_dim"), -1, to_value=_axis))
    ),
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": replace(_RECURRENT, fields=(*_RECURRENT.fields, Field("nonlinearity", _nonlinearity, "tanh"))),
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
