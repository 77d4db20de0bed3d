"""The reference backend: models in NumPy and float64, without a framework."""

from maam.reference.model import ReferenceModel, build, load, load_weights, save_weights

__all__ = ["ReferenceModel", "build", "load", "load_weights", "save_weights"]
