"""Models for inference engines: ONNX, OpenVINO, torch.export, ExecuTorch, MindIR."""

from maam.exporting.exporter import Exported, export
from maam.exporting.formats import FORMATS, open_exported

__all__ = ["FORMATS", "Exported", "export", "open_exported"]
