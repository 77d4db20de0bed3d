"""Building PyTorch modules from specs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maam import spec as specs
from maam.errors import SpecError
from maam.spec.presets import resolve
from maam.torch.arrays import write_arrays
from maam.torch.containers import Container, instantiate


def build(
    spec: specs.Node | str,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """The module of a spec, in train mode, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by PyTorch's generator,
            from the same distributions.
        device: where the parameters are made.
        dtype: their dtype, a floating one; PyTorch's default dtype where None.
        options: of the preset (`num_classes`, ...).

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed, the dtype or
            an option is invalid.
        PresetError: there is no preset of that name, or it has no such option.
    """
    node = resolve(spec, **options)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise SpecError(f"dtype: expected a floating torch.dtype such as torch.float16, got {dtype!r}")
    module = instantiate(node, device=device, dtype=dtype)
    module.spec = node  # type: ignore[assignment]
    if isinstance(module, Container):
        module.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(module, specs.draw(node.parameters(), seed))
    return module
