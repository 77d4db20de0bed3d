"""Deployment: export to inference engines, int8 quantization, and pruning."""

from maam.deploy.channels import Channels
from maam.deploy.exporting import FORMATS, Exported, export, open_exported
from maam.deploy.fusing import fuse
from maam.deploy.pruning import Pruned, prune, prune_file
from maam.deploy.quantization import MIN_IMAGES, Quantized, quantize

__all__ = [
    "FORMATS",
    "MIN_IMAGES",
    "Channels",
    "Exported",
    "Pruned",
    "Quantized",
    "export",
    "fuse",
    "open_exported",
    "prune",
    "prune_file",
    "quantize",
]
