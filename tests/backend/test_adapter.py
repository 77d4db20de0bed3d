"""The first tensor in the output of a layer, which ports read and replace."""

from typing import NamedTuple

import pytest

from maam.backend.adapter import first_of, with_first


class Pair(NamedTuple):
    first: object
    second: object


@pytest.mark.parametrize(
    ("output", "found", "replaced"),
    [
        (1, 1, 7),
        ((1, 2), 1, (7, 2)),
        ([None, 2], 2, [None, 7]),
        (("x", (None, [3, 4])), 3, ("x", (None, [7, 4]))),
        (Pair((), 5), 5, Pair((), 7)),
    ],
)
def test_the_first_object_is_found_and_replaced(output, found, replaced):
    assert first_of(output, int) == found
    changed = with_first(output, int, 7)
    assert changed == replaced
    assert type(changed) is type(replaced)


@pytest.mark.parametrize("output", [None, (), ("x", [None])])
def test_there_is_none(output):
    assert first_of(output, int) is None
