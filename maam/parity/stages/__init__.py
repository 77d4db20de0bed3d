"""The stages of parity, in the order in which they run: the most exact about where a fault lies come first."""

from maam.parity.stages.exchange import exchange_weights
from maam.parity.stages.forward import compare_outputs
from maam.parity.stages.free_run import run_freely
from maam.parity.stages.fused import compare_fused
from maam.parity.stages.gradients import compare_gradients, compare_trained_gradients
from maam.parity.stages.lattice import run_lattice
from maam.parity.stages.layers import compare_layers
from maam.parity.stages.precision import measure_precision
from maam.parity.stages.steps import compare_steps

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
