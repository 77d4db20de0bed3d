"""The weights file: one safetensors file with the spec in its header, for all frameworks."""

from maam.weights.file import read_weights, write_weights
from maam.weights.match import Mismatch, match
from maam.weights.pretrained import list_pretrained

__all__ = ["Mismatch", "list_pretrained", "match", "read_weights", "write_weights"]
