"""The cost of layers and models: CPU time, memory and size, interleaved in one process."""

from benchmarks.cost.cases import LAYERS, MODELS
from benchmarks.cost.measure import FRAMEWORKS, GROWTH, Result, measure, measure_growth

__all__ = ["FRAMEWORKS", "GROWTH", "LAYERS", "MODELS", "Result", "measure", "measure_growth"]
