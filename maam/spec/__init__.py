"""Specs: descriptions of layers and networks, from which each backend builds native modules.

A spec knows its parameters, shapes and multiply-accumulates. This package needs only NumPy and pydantic.
"""

from maam.spec import models as _models  # registers the presets
from maam.spec.composites import composite
from maam.spec.containers import Model, Parallel, Residual, Resize, Scale, Sequential
from maam.spec.fields import Shape
from maam.spec.heads import head, with_num_classes
from maam.spec.inputs import InputRule, input_rule
from maam.spec.layers import agent_block, cbam, maam, maam_stem, maf, mafb, mafc, patch_widths, reduce_layer, se
from maam.spec.models import cnn, maam_classifier, maam_imagenet, maam_net, mlp, mobilenet, rnn
from maam.spec.node import Node, parse_document, parse_json
from maam.spec.parameters import Init, Parameter, Role, draw
from maam.spec.presets import list_presets, preset, preset_options, register_preset
from maam.spec.primitives import (
    RNN,
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Unflatten,
)

del _models

__all__ = [
    "RNN",
    "Activation",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalPool",
    "Identity",
    "Init",
    "InputRule",
    "Linear",
    "MaxPool2d",
    "Model",
    "Node",
    "Parallel",
    "Parameter",
    "Residual",
    "Resize",
    "Role",
    "Scale",
    "Sequential",
    "Shape",
    "Unflatten",
    "agent_block",
    "cbam",
    "cnn",
    "composite",
    "draw",
    "head",
    "input_rule",
    "list_presets",
    "maam",
    "maam_classifier",
    "maam_imagenet",
    "maam_net",
    "maam_stem",
    "maf",
    "mafb",
    "mafc",
    "mlp",
    "mobilenet",
    "parse_document",
    "parse_json",
    "patch_widths",
    "preset",
    "preset_options",
    "reduce_layer",
    "register_preset",
    "rnn",
    "se",
    "with_num_classes",
]
