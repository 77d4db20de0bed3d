"""The weights file: one safetensors file whose header carries the spec, the same for every framework."""

from maam.weights.file import read_weights, write_weights
from maam.weights.match import Mismatch, match

__all__ = ["Mismatch", "match", "read_weights", "write_weights"]
