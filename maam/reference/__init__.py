"""The referee room: NumPy in float64, no framework."""

from maam.reference.models import Referee, build
from maam.reference.weights import load, load_weights, save_weights

__all__ = ["Referee", "build", "load", "load_weights", "save_weights"]
