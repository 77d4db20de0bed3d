"""Fusion for deployment: a rewrite of (spec, weights) into (spec, weights), by NumPy in float64."""

from maam.fusion.modules import fused_form, stays_trainable
from maam.fusion.rewrite import check_fusible, fuse, is_fusible

__all__ = ["check_fusible", "fuse", "fused_form", "is_fusible", "stays_trainable"]
