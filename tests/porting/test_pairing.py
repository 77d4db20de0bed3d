"""What the user's map of names settles, and errors that are no numbers."""

import numpy as np
import pytest

from maam.backend.adapter import Layer, Slot
from maam.errors import PortingError
from maam.porting.compare import allowances, errors
from maam.porting.pairing import pair_layers


def layers(*names):
    """Linear layers of these names."""
    return [Layer(name, "linear", {"weight": Slot(f"{name}.weight", (2, 2), True)}) for name in names]


def pairs(own, other, **keywords):
    found = pair_layers(layers(*own), layers(*other), **keywords)
    return {pair.torch.name: pair.mindspore.name for pair in found[0].pairs}


def test_a_map_of_what_holds_layers_of_other_names():
    own, other = ("branch_a.conv", "branch_b.conv"), ("left.c", "right.c")
    assert pairs(own, other) == {"branch_a.conv": "left.c", "branch_b.conv": "right.c"}
    swapped = {"branch_a": "right", "branch_b": "left"}
    assert pairs(own, other, names=swapped) == {"branch_a.conv": "right.c", "branch_b.conv": "left.c"}


def test_names_within_and_order_for_the_rest():
    own, other = ("a.x", "a.p", "a.q"), ("b.s", "b.x", "b.t")
    assert pairs(own, other, names={"a": "b"}) == {"a.x": "b.x", "a.p": "b.s", "a.q": "b.t"}


def test_what_is_skipped_is_not_paired_in_order():
    found = pairs(("a.x", "a.p"), ("b.x", "b.t"), names={"a": "b"}, skip=["a.p", "b.t"])
    assert found == {"a.x": "b.x"}


def test_a_map_that_settles_nothing():
    message = "names: a of PyTorch holds 2 layers with weights and x of MindSpore 1, and no names agree; name the"
    with pytest.raises(PortingError, match=message):
        pairs(("a.p", "a.q"), ("x.s", "y"), names={"a": "x"})


def test_a_layer_that_is_given_twice():
    with pytest.raises(PortingError, match=r"names: x\.d of MindSpore is given for several layers of PyTorch"):
        pairs(("a.d", "b"), ("x.d", "y"), names={"a": "x", "b": "x.d"}, skip=["y"])


def test_what_is_no_number_is_no_agreement():
    expected = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}
    found = errors({"a": expected["a"], "b": np.array([np.nan, 4.0])}, expected)
    assert found == {"a": 0.0, "b": np.inf}
    assert allowances(expected, [{"a": expected["a"], "b": np.full(2, np.nan)}])["b"] == np.inf
