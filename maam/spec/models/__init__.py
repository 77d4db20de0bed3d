"""Whole networks, and their presets."""

from maam.spec.models.baselines import cnn, mlp, rnn
from maam.spec.models.maam import maam_classifier

__all__ = ["cnn", "maam_classifier", "mlp", "rnn"]
