"""The referee room: NumPy in float64, no framework."""

from maam.reference.model import Referee, build, load, load_weights, save_weights

__all__ = ["Referee", "build", "load", "load_weights", "save_weights"]
