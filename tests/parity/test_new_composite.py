"""A gate that only this file knows builds in every room and passes parity: backends know primitives alone."""

import inspect

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.parity import check
from maam.spec.fields import Size

pytest.importorskip("torch")
pytest.importorskip("mindspore")


@spec.composite
def squeeze_excite(channels: Size, *, reduced: Size = 2) -> spec.Scale:
    """Squeeze and excitation: (channels, H, W) to the same shape."""
    return spec.Scale(
        children={
            "pool": spec.GlobalPool(),
            "conv1": spec.Conv2d(in_channels=channels, out_channels=reduced, kernel_size=1),
            "act": spec.Activation(function="relu"),
            "conv2": spec.Conv2d(in_channels=reduced, out_channels=channels, kernel_size=1),
            "gate": spec.Activation(function="sigmoid"),
        }
    )


def test_parity():
    report = check(squeeze_excite(8), compiled=False)
    assert report.complete, report.to_markdown()
    assert {row.runner for row in report.rows} >= {"torch", "mindspore graph", "mindspore pynative"}


def test_as_layer_in_both_frameworks():
    import mindspore as ms
    import torch

    from maam.mindspore.layers import Layer as Cell
    from maam.torch.layers import Layer as Module

    class TorchGate(Module, composite=squeeze_excite):
        pass

    class MindSporeGate(Cell, composite=squeeze_excite):
        pass

    assert list(inspect.signature(TorchGate).parameters) == ["channels", "reduced", "device", "dtype"]
    assert list(inspect.signature(MindSporeGate).parameters) == ["channels", "reduced"]
    x = np.ones((2, 8, 3, 3), np.float32)
    assert TorchGate(8)(torch.from_numpy(x)).shape == x.shape
    assert MindSporeGate(8, reduced=3)(ms.Tensor(x)).shape == x.shape


def test_bad_argument_is_refused():
    with pytest.raises(SpecError, match="squeeze_excite: reduced"):
        squeeze_excite(8, reduced=0)
