"""Building MindSpore cells from specs."""

from __future__ import annotations

from typing import Any

from mindspore import dtype as mstype
from mindspore import nn

from maam import spec as specs
from maam.errors import SpecError
from maam.mindspore.arrays import DTYPES, write_arrays
from maam.mindspore.containers import Container, instantiate
from maam.spec.presets import resolve
from maam.weights.file import DTYPES as FILE_DTYPES


def build(spec: specs.Node | str, *, seed: int | None = None, dtype: Any = mstype.float32, **options: Any) -> nn.Cell:
    """The cell of a spec, in MindSpore's initial (inference) state, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by MindSpore's
            generator, from the same distributions.
        dtype: the dtype of the parameters, a floating one.
        options: of the preset (`num_classes`, ...).

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed, the dtype or
            an option is invalid.
        PresetError: there is no preset of that name, or it has no such option.
    """
    node = resolve(spec, **options)
    if dtype not in DTYPES or DTYPES[dtype] not in FILE_DTYPES.values():
        raise SpecError(f"dtype: expected a floating dtype such as mindspore.float16, got {dtype!r}")
    cell = instantiate(node, dtype=dtype)
    cell.spec = node
    cell.set_train(False)  # else graph mode keeps a graph compiled in inference state after set_train()
    if isinstance(cell, Container):
        cell.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(cell, specs.draw(node.parameters(), seed))
    return cell
