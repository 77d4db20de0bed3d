"""Ports of your own models: copy weights between a PyTorch module and a MindSpore cell, and compare both."""

from maam.backend.adapter import Layer, ModelAdapter
from maam.porting.causes import Cause
from maam.porting.files import load_factory, save_weights
from maam.porting.matching import Pair
from maam.porting.pairing import pair_layers
from maam.porting.report import PortReport
from maam.porting.session import port

__all__ = [
    "Cause",
    "Layer",
    "ModelAdapter",
    "Pair",
    "PortReport",
    "load_factory",
    "pair_layers",
    "port",
    "save_weights",
]
