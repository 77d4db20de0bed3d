"""Pickled data read as data: no unpickler runs, so a file can neither call a function nor write into memory.

The Python layout of CIFAR is a pickle of NumPy arrays, lists and strings. `read_pickle` interprets the few opcodes that
such a file consists of, and builds each array from its dtype, shape and bytes.
"""

from __future__ import annotations

import math
import pickletools
import re
from typing import Any

import numpy as np

ADMITTED = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
"""The names that NumPy writes for an array, and Python 3 for a byte string, by their meaning here."""
_NUMERIC = re.compile(r"[<>|=]?[biuf][1248]")
_MARK = object()
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class PickleContentError(ValueError):
    """Pickle that is truncated or contains more than arrays, lists, dicts, strings and numbers."""


class _Name(str):
    """A name of `ADMITTED`; text in the file cannot be mistaken for one."""


class _Array:
    """An array or a dtype, which a pickle makes empty and fills afterwards."""

    def __init__(self, dtype: np.dtype[Any] | None = None) -> None:
        self.dtype = dtype
        self.value: Any = None

    def fill(self, state: Any) -> None:
        """Set the byte order of a dtype, or the elements of an array, from the state that NumPy writes."""
        if self.dtype is not None:
            order: Any = _text(state[1])
            self.dtype = self.dtype.newbyteorder(order)
            return
        _, shape, described, is_fortran, raw = state
        if not isinstance(described, _Array) or described.dtype is None or not isinstance(raw, bytes):
            raise PickleContentError("an array without numeric elements")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise PickleContentError("an array whose shape is not a tuple of integers of at least 0")
        if math.prod(shape) * described.dtype.itemsize != len(raw):
            raise PickleContentError("an array whose shape does not fit its bytes")
        self.value = np.frombuffer(raw, described.dtype).reshape(shape, order="F" if is_fortran else "C")


def read_pickle(data: bytes, limit: int) -> Any:
    """Return the content of a pickle: numbers, strings, byte strings, lists, tuples, dicts and numeric arrays.

    Strings of Python 2 are returned as bytes.

    Args:
        data: the pickle.
        limit: the largest number of opcodes, so that a small file cannot keep the processor busy.

    Raises:
        PickleContentError: the pickle names or does anything else.
        Exception: the pickle is malformed; `pickletools` and Python's types raise many kinds of errors.
    """
    reader = _Reader()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count == limit:
            raise PickleContentError(f"it has more than {limit} opcodes")
        if opcode.name == "STOP":
            return _resolved(reader.stack.pop())
        reader.run(opcode.name, argument)
    raise PickleContentError("it ends early")


class _Reader:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        push = self.stack.append
        if name in _CONSTANTS:
            push(argument)
        elif name in _STRINGS:
            push(argument.encode("latin-1"))
        elif name in _FIXED:
            push(_FIXED[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            push(self.memo[argument])
        elif name == "MARK":
            push(_MARK)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            push(_admit(argument if name == "GLOBAL" else " ".join(map(_text, self._pop(2)))))
        elif name == "REDUCE":
            push(_call(*self._pop(2)))
        elif name == "BUILD":
            state = self.stack.pop()
            if not isinstance(self.stack[-1], _Array):
                raise PickleContentError("it changes an object that is not an array")
            self.stack[-1].fill(state)
        elif name not in ("PROTO", "FRAME"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        """Execute an opcode that makes or extends a list, tuple or dict."""
        push = self.stack.append
        if name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
            push({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple(self._pop(int(name[-1]))))
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._since_mark()
            push(_pairs(items) if name == "DICT" else tuple(items) if name == "TUPLE" else items)
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else self._pop(1)
            list.extend(self.stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else self._pop(2)
            dict.update(self.stack[-1], _pairs(items))
        else:
            raise PickleContentError(f"it uses the opcode {name}")

    def _pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count or any(item is _MARK for item in items):
            raise PickleContentError("its stack is too short")
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _admit(name: str) -> _Name:
    if name not in ADMITTED:
        raise PickleContentError(f"it names {name.replace(' ', '.')}")
    return _Name(ADMITTED[name])


def _call(function: Any, arguments: Any) -> Any:
    if isinstance(function, _Name) and isinstance(arguments, tuple):
        first = arguments[0] if arguments else None
        if function == "array" and isinstance(first, _Name) and first == "ndarray":
            return _Array()
        if function == "dtype" and _NUMERIC.fullmatch(_text(first)):
            return _Array(np.dtype(_text(first)))
        if function == "encode" and isinstance(first, str) and _text(arguments[1]) == "latin1":
            return first.encode("latin-1")
    raise PickleContentError("it calls a function that does not belong to a numeric array")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii")
    if not isinstance(value, str):
        raise PickleContentError("it has another object where a text belongs")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _resolved(content: Any) -> Any:
    """Return a dict with its arrays as NumPy arrays, and other content unchanged."""
    if not isinstance(content, dict):
        return content
    return {key: item.value if isinstance(item, _Array) else item for key, item in content.items()}
