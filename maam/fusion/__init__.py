"""Fusion for deployment: a rewrite of (spec, weights) into (spec, weights), by NumPy in float64."""

from maam.fusion.rewrite import check_fusible, fuse, is_fusible

__all__ = ["check_fusible", "fuse", "is_fusible"]
