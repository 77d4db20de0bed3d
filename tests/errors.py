"""The message of an expected error."""

import pytest


def error_of(kind, call, *args, **kwargs):
    """Return the message of the error that a call raises, after checking that it is one printable line."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert str(caught.value).isprintable()
    return str(caught.value)
