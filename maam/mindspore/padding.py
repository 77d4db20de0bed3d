"""The padding and pooling of MindSpore's layers for a port; see `maam.backend.settings`.

Padding is given as rows and columns on each side.
"""

from __future__ import annotations

from typing import Any

from maam.backend.settings import (
    Field,
    InexpressibleError,
    Shapes,
    flat_sides,
    per_axis,
    same_padding,
    shown,
    spatial_axes,
    spread,
)

_PAD_CELLS = {"zeros": "ConstantPad", "reflect": "ReflectionPad", "replicate": "ReplicationPad"}


def _given(cell: Any) -> tuple[tuple[int, int], ...]:
    """Return the padding of mode "pad" on both sides of each axis, from any of the forms that MindSpore takes."""
    count = spatial_axes(cell)
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


def pad_mode(cell: Any) -> str:
    """Return the mode of padding: "same", "valid" or "pad"."""
    return str(getattr(cell, "pad_mode", "pad")).lower()


def sides(_value: Any, cell: Any, inputs: Shapes) -> Any:
    """Return the padding on both sides of each axis; that of mode "same" follows from the sizes of the input."""
    count = spatial_axes(cell)
    if pad_mode(cell) == "pad":
        return _given(cell)
    if pad_mode(cell) == "valid":
        return ((0, 0),) * count
    kernel, stride = per_axis(cell.kernel_size, count), per_axis(cell.stride, count)
    dilation = per_axis(getattr(cell, "dilation", 1), count)
    if inputs:
        return same_padding(inputs[0][-count:], kernel, stride, dilation)
    return same_padding((1,) * count, kernel, (1,) * count, dilation)


def transposed_sides(_value: Any, cell: Any, _inputs: Shapes) -> Any:
    """Return the rows that are cut off on both sides."""
    count = spatial_axes(cell)
    if pad_mode(cell) != "same":
        return _given(cell) if pad_mode(cell) == "pad" else ((0, 0),) * count
    sizes = zip(*(per_axis(v, count) for v in (cell.kernel_size, cell.stride, cell.dilation)), strict=True)
    totals = [max(d * (k - 1) + 1 - s, 0) for k, s, d in sizes]
    return tuple((total // 2, total - total // 2) for total in totals)


def padding_text(cell: Any) -> str:
    """Return the arguments for the padding as MindSpore writes them."""
    mode = pad_mode(cell)
    if mode != "pad":
        return f'pad_mode="{mode}"'
    own = _given(cell)
    flat = [side for pair in own for side in pair]
    return f'pad_mode="pad", padding={shown(tuple(flat))}'


def own_padding(value: Any, cell: Any) -> dict[str, Any]:
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


def kept_padding(cell: Any) -> dict[str, Any]:
    """Return the arguments for the padding of a cell; mode "same" keeps its name, because its rows depend on sizes."""
    if pad_mode(cell) == "same":
        return {"pad_mode": "same"} if _pools(cell) else {}
    return own_padding(_given(cell) if pad_mode(cell) == "pad" else (), cell)


def _pools(cell: Any) -> bool:
    return hasattr(cell, "max_pool") or hasattr(cell, "avg_pool")


def pads_before(kind: str, cell: Any, values: dict[str, Any]) -> list[str]:
    """Return the cell that pads where the convolution itself cannot, and change the padding of the convolution."""
    wanted, mode, count = values.get("padding", ()), values.get("padding_mode", "zeros"), spatial_axes(cell)
    if kind != "convolution" or not any(map(any, wanted)):
        return []
    if mode == "zeros" and (count > 1 or all(low == high for low, high in wanted)):
        return []
    if mode not in _PAD_CELLS:
        raise InexpressibleError(f'MindSpore has no layer for padding_mode="{mode}"')
    values["padding"] = ((0, 0),) * count
    fill = ", 0.0" if mode == "zeros" else ""
    return [f"nn.{_PAD_CELLS[mode]}{count}d({shown(flat_sides(wanted))}{fill})"]


def pooling_field(name: str, default: Any) -> Field:
    """Return a field of pooling whose value is in MindSpore's operator."""

    def read(cell: Any) -> Any:
        operator = getattr(cell, "max_pool", None) or cell.avg_pool
        return getattr(operator, name, default) or default

    def write(value: Any, _cell: Any) -> dict[str, Any]:
        own = shown(value) if isinstance(value, tuple) else value
        return {} if own in (default, str(default)) else {"pad_mode": "pad", name: value}  # only this mode takes it

    if name == "dilation":
        return Field(name, read, default, to_value=spread, to_own=write)
    return Field(name, read, default, to_own=write)


def includes_padding(cell: Any) -> bool:
    """Return whether the mean counts padding; the operator for modes "same" and "valid" does not."""
    return bool(getattr(cell.avg_pool, "count_include_pad", pad_mode(cell) == "valid"))
