"""The referee room: NumPy in float64, no framework."""

from maam.reference.model import ReferenceModel, build, load, load_weights, save_weights

__all__ = ["ReferenceModel", "build", "load", "load_weights", "save_weights"]
