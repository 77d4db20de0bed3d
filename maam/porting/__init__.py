"""A user's own model in both frameworks: weights moved by structure, and proof of what agrees."""

from maam.porting.factories import load_factory
from maam.porting.half import Half, Layer
from maam.porting.pairing import Pair, pair_layers
from maam.porting.session import PortReport, port, save_weights

__all__ = ["Half", "Layer", "Pair", "PortReport", "load_factory", "pair_layers", "port", "save_weights"]
