"""What the referee refuses, in the words of the spec."""

import numpy as np
import pytest

from maam import spec
from maam.errors import ShapeError
from maam.reference import build


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 8, 8)), "expected an input (N, 1, 8, 8), got 3 dimensions: (2, 8, 8)"),
        (np.zeros((2, 3, 8, 8)), "expected an input (N, 1, 8, 8), got (2, 3, 8, 8)"),
        (np.zeros((2, 1, 8, 9)), "expected an input (N, 1, 8, 8), got (2, 1, 8, 9)"),
        (
            np.zeros((2, 1, 8, 8), np.uint8),
            "expected a floating-point input (N, 1, 8, 8), got uint8; convert it and scale images to [0, 1]",
        ),
        (np.zeros((2, 1, 8, 8), bool), None),
        (np.zeros((2, 1, 8, 8), complex), None),
        ("image", "expected an input (N, 1, 8, 8), got 0 dimensions: ()"),
        (None, "expected an input (N, 1, 8, 8), got 0 dimensions: ()"),
    ],
)
def test_wrong_inputs_are_refused_in_the_words_of_the_spec(x, message):
    referee, array = build("maam_digits", seed=0), np.asarray(x)
    with pytest.raises(ShapeError) as caught:
        referee(x)
    with pytest.raises(ShapeError) as expected:
        spec.input_rule(referee.spec).check(array.shape, str(array.dtype))
    assert str(caught.value) == str(expected.value)
    assert message in (None, str(caught.value))
