"""Building MindSpore cells from specs."""

from __future__ import annotations

from typing import Any

from mindspore import dtype as mstype
from mindspore import nn

from maam import spec as specs
from maam.mindspore.arrays import write_arrays
from maam.mindspore.containers import Container, instantiate
from maam.spec.presets import resolve


def build(spec: specs.Node | str, *, seed: int | None = None, dtype: Any = mstype.float32) -> nn.Cell:
    """The cell of a spec, in MindSpore's initial (inference) state, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by MindSpore's
            generator, from the same distributions.
        dtype: the dtype of the parameters.

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed is invalid.
        PresetError: there is no preset of that name.
    """
    node = resolve(spec)
    cell = instantiate(node, dtype=dtype)
    cell.spec = node
    cell.set_train(False)  # else graph mode keeps a graph compiled in inference state after set_train()
    if isinstance(cell, Container):
        cell.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(cell, specs.draw(node.parameters(), seed))
    return cell
