"""Pruning: branches of small fusion weight and channels of small batch-norm scale, from spec to spec."""

from maam.pruning.files import Pruned, prune_file
from maam.pruning.rewrite import prune

__all__ = ["Pruned", "prune", "prune_file"]
