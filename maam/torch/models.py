"""Building PyTorch modules from specs."""

from __future__ import annotations

import torch
from torch import nn

from maam import spec as specs
from maam.spec.presets import resolve
from maam.torch.arrays import write_arrays
from maam.torch.containers import Container, instantiate


def build(
    spec: specs.Node | str,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """The module of a spec, in train mode, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by PyTorch's generator,
            from the same distributions.
        device: where the parameters are made.
        dtype: their dtype; PyTorch's default dtype where None.

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed is invalid.
        PresetError: there is no preset of that name.
    """
    node = resolve(spec)
    module = instantiate(node, device=device, dtype=dtype)
    module.spec = node  # type: ignore[assignment]
    if isinstance(module, Container):
        module.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(module, specs.draw(node.parameters(), seed))
    return module
