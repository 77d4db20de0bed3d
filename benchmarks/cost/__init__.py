"""What layers and models cost, in turns within one run, beside the machine's own rate of matrix products."""

from benchmarks.cost.cases import LAYERS, MODELS
from benchmarks.cost.measure import FRAMEWORKS, GROWTH, Result, measure, measure_growth

__all__ = ["FRAMEWORKS", "GROWTH", "LAYERS", "MODELS", "Result", "measure", "measure_growth"]
