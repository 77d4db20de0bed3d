"""A user's own model in both frameworks: weights moved by structure, and proof of what agrees."""

from maam.backend.adapter import Half, Layer
from maam.porting.pairing import Pair, pair_layers
from maam.porting.session import PortReport, load_factory, port, save_weights

__all__ = ["Half", "Layer", "Pair", "PortReport", "load_factory", "pair_layers", "port", "save_weights"]
