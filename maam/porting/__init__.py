"""Ports of your own models: copy weights between a PyTorch module and a MindSpore cell, and compare both."""

from maam.backend.adapter import Layer, ModelAdapter
from maam.porting.pairing import Pair, pair_layers
from maam.porting.session import PortReport, load_factory, port, save_weights

__all__ = ["Layer", "ModelAdapter", "Pair", "PortReport", "load_factory", "pair_layers", "port", "save_weights"]
