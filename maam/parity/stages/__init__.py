"""The stages of parity, in the order in which they run: the most exact about where a fault lies come first."""

from maam.parity.stages.exchange import exchange
from maam.parity.stages.forward import model_forward
from maam.parity.stages.free_run import free_run
from maam.parity.stages.gradients import gradients, trained_gradients
from maam.parity.stages.lattice import lattice
from maam.parity.stages.layers import layers
from maam.parity.stages.precision import precision
from maam.parity.stages.steps import steps

STAGES = {
    "exchange": exchange,
    "lattice": lattice,
    "layers": layers,
    "forward": model_forward,
    "gradients": gradients,
    "trained": trained_gradients,
    "steps": steps,
    "free run": free_run,
    "precision": precision,
}

__all__ = ["STAGES"]
