"""The settings of PyTorch's layers for a port; see `maam.backend.settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from maam.backend.adapter import Setting
from maam.backend.settings import Description, Field, Shapes, axis_from_end, per_axis, same_padding, shown


def read_settings(kind: str, module: Any, inputs: Shapes) -> dict[str, Setting]:
    """Return the settings of a module of a kind, by their names; none for kinds without settings."""
    return _TABLE[kind].read(module, inputs) if kind in _TABLE else {}


def write_module(kind: str, module: Any, values: Mapping[str, Any]) -> str:
    """Return the expression that builds the module with other values of some settings; "" for other kinds."""
    if kind not in _TABLE or type(module).__module__.partition(".")[0] != "torch":
        return ""
    return _TABLE[kind].write(f"nn.{type(module).__name__.removeprefix('Parametrized')}", module, values)


def _plain(name: str, default: Any = None) -> Field:
    return Field(name, attrgetter(name), default)


def axes(module: Any) -> int:
    """Return the number of spatial axes, from the name of the class."""
    name = next((base.__name__ for base in type(module).__mro__ if base.__name__[-2:] in ("1d", "2d", "3d")), "2d")
    return int(name[-2])


def _spread(value: Any, module: Any, _inputs: Shapes) -> tuple[int, ...]:
    return per_axis(value, axes(module))


def _sizes(name: str, default: Any) -> Field:
    return Field(name, attrgetter(name), default, to_value=_spread)


def _sides(value: Any, module: Any, inputs: Shapes) -> Any:
    """Return the padding on both sides of each axis."""
    count = axes(module)
    if value == "same":
        kernel, dilation = per_axis(module.kernel_size, count), per_axis(module.dilation, count)
        return same_padding((1,) * count, kernel, (1,) * count, dilation)
    return tuple((p, p) for p in ((0,) * count if value == "valid" else per_axis(value, count)))


def _transposed_sides(value: Any, module: Any, inputs: Shapes) -> Any:
    """Return the rows that are cut off on both sides; `output_padding` cuts off fewer at the end."""
    more = per_axis(module.output_padding, axes(module))
    return tuple((low, high - add) for (low, high), add in zip(_sides(value, module, inputs), more, strict=True))


def _own_padding(value: Any, _module: Any) -> dict[str, Any]:
    if any(low != high for low, high in value):
        return {"padding": f"{value}: pad with nn.ZeroPad2d before, because PyTorch pads both sides equally"}
    own = tuple(low for low, _ in value)
    return {"padding": own} if any(own) else {}


def _own_transposed_padding(value: Any, _module: Any) -> dict[str, Any]:
    own, more = tuple(low for low, _ in value), tuple(low - high for low, high in value)
    return {name: v for name, v in (("padding", own), ("output_padding", more)) if any(v)}


def _transposed_text(module: Any) -> str:
    return f"padding={shown(module.padding)}, output_padding={shown(module.output_padding)}"


def _axis(value: Any, _module: Any, inputs: Shapes) -> Any:
    return value if value is None else axis_from_end(value, inputs)


def _statistics(module: Any) -> str:
    return "of the batch in train mode" if module.track_running_stats else "of the batch"


def _statistics_text(module: Any) -> str:
    return f"track_running_stats={module.track_running_stats}"


def _output_size(value: Any, module: Any, inputs: Shapes) -> Any:
    count = axes(module)
    own = (value,) * count if not isinstance(value, (tuple, list)) else tuple(value)
    return tuple(inputs[0][i - count] if v is None and inputs else v for i, v in enumerate(own))


def _trained(value: Any, module: Any, _inputs: Shapes) -> bool:
    """Return whether weight and bias are trained; a frozen norm behaves like one without them."""
    return bool(value and module.weight.requires_grad)


def _affine_text(module: Any) -> str:
    frozen = module.affine and not module.weight.requires_grad
    return f"affine={module.affine}{', frozen' if frozen else ''}"


_KERNEL_SIZE = Field("kernel_size", attrgetter("kernel_size"), to_value=_spread, positional=True)
_KERNEL = (_sizes("stride", 1), Field("padding", attrgetter("padding"), 0, to_value=_sides, to_own=_own_padding))
_CHANNELS = attrgetter("in_channels", "out_channels", "kernel_size")
_AFFINE = Field("affine", attrgetter("affine"), True, to_value=_trained, describe=_affine_text)
_NORM = (_plain("eps", 1e-5), _AFFINE)
_USE = Field(
    "use of statistics",
    _statistics,
    describe=_statistics_text,
    to_own=lambda value, _: {"track_running_stats": False} if value == "of the batch" else {},
)
_RECURRENT = Description(
    (_plain("num_layers", 1), _plain("batch_first", False), _plain("bidirectional", False), _plain("dropout", 0.0)),
    attrgetter("input_size", "hidden_size"),
)


def _bias(module: Any) -> dict[str, Any]:
    return {} if module.bias is not None else {"bias": False}


def _one(name: str) -> Callable[[Any], tuple[Any, ...]]:
    return lambda module: (getattr(module, name),)


_CONVOLUTION = (
    _KERNEL_SIZE,
    *_KERNEL,
    _sizes("dilation", 1),
    _plain("groups", 1),
    _plain("padding_mode", "zeros"),
)
_TABLE: dict[str, Description] = {
    "convolution": Description(_CONVOLUTION, attrgetter("in_channels", "out_channels"), _bias),
    "transposed convolution": Description(
        (
            _KERNEL_SIZE,
            _sizes("stride", 1),
            Field(
                "padding", attrgetter("padding"), 0, "", _transposed_sides, _own_transposed_padding, _transposed_text
            ),
            Field("appended zeros", lambda m: (0,) * axes(m), describe=lambda _: "none", to_own=lambda *_: {}),
            _sizes("dilation", 1),
            _plain("groups", 1),
        ),
        attrgetter("in_channels", "out_channels"),
        _bias,
    ),
    "batch norm": Description((_plain("eps", 1e-5), _plain("momentum", 0.1), _AFFINE, _USE), _one("num_features")),
    "instance norm": Description((*_NORM, _USE), _one("num_features")),
    "group norm": Description(_NORM, attrgetter("num_groups", "num_channels")),
    "layer norm": Description(
        (
            _plain("eps", 1e-5),
            Field("normalized axes", lambda m: len(m.normalized_shape), to_own=lambda *_: {}),
        ),
        lambda m: (m.normalized_shape if len(m.normalized_shape) > 1 else m.normalized_shape[0],),
    ),
    "embedding": Description((_plain("padding_idx"),), attrgetter("num_embeddings", "embedding_dim")),
    "linear": Description(
        (Field("activation", lambda _: None, describe=lambda _: "none", to_own=lambda *_: {}),),
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
    "max pooling": Description((_KERNEL_SIZE, *_KERNEL, _sizes("dilation", 1), _plain("ceil_mode", False))),
    "average pooling": Description(
        (
            _KERNEL_SIZE,
            *_KERNEL,
            _plain("ceil_mode", False),
            _plain("count_include_pad", True),
            Field("divisor_override", lambda m: getattr(m, "divisor_override", None)),
        )
    ),
    "adaptive average pooling": Description((Field("output_size", attrgetter("output_size"), to_value=_output_size),)),
    "adaptive max pooling": Description((Field("output_size", attrgetter("output_size"), to_value=_output_size),)),
    "upsample": Description(
        (
            _plain("size"),
            Field("scale_factor", attrgetter("scale_factor")),
            _plain("mode", "nearest"),
            Field("align_corners", lambda m: bool(m.align_corners), False),
        )
    ),
    "flatten": Description((_plain("start_dim", 1), Field("end_dim", attrgetter("end_dim"), -1, to_value=_axis))),
    "pixelshuffle": Description((), _one("upscale_factor")),
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": Description((*_RECURRENT.fields, _plain("nonlinearity", "tanh")), _RECURRENT.leading),
    "attention": Description(
        (_plain("batch_first", False), _plain("dropout", 0.0), Field("num_heads", attrgetter("num_heads"))),
        _one("embed_dim"),
    ),
}
