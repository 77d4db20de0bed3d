"""The stages of parity, in the order in which they run: the most exact about where a fault lies come first."""

from maam.parity.stages.forward import compare_fused, compare_outputs, exchange_weights, measure_precision
from maam.parity.stages.gradients import compare_gradients, compare_trained_gradients
from maam.parity.stages.lattice import run_lattice
from maam.parity.stages.layers import compare_layers
from maam.parity.stages.steps import compare_steps, run_freely

STAGES = {
    "exchange": exchange_weights,
    "lattice": run_lattice,
    "layers": compare_layers,
    "forward": compare_outputs,
    "fused": compare_fused,
    "gradients": compare_gradients,
    "trained": compare_trained_gradients,
    "steps": compare_steps,
    "free run": run_freely,
    "precision": measure_precision,
}

__all__ = ["STAGES"]
