"""Whole networks, and their presets."""

from maam.spec.models.baselines import cnn, mlp, rnn
from maam.spec.models.maam import maam_classifier, maam_imagenet
from maam.spec.models.maam_net import maam_net
from maam.spec.models.mobilenet import mobilenet

__all__ = ["cnn", "maam_classifier", "maam_imagenet", "maam_net", "mlp", "mobilenet", "rnn"]
