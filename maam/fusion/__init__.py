"""Fusion for deployment: a smaller spec and weights that compute the same in inference."""

from maam.fusion.rewrite import check_fusible, fuse, is_fusible

__all__ = ["check_fusible", "fuse", "is_fusible"]
