"""Quantization after training: int8 by OpenVINO's NNCF or by ONNX Runtime."""

from maam.quantization.quantizer import MIN_IMAGES, Quantized, quantize

__all__ = ["MIN_IMAGES", "Quantized", "quantize"]
