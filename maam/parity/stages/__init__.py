"""The stages of a parity check, in running order: those that locate a fault most exactly come first.

A stage is a function of the subject and of the first layer that earlier stages found to differ ("" if none did), and
returns its findings. Stages that compare whole models report that layer instead of guessing one.
"""

from __future__ import annotations

from collections.abc import Callable

from maam.parity.report import Findings
from maam.parity.stages.forward import compare_fused, compare_outputs, exchange_weights, measure_precision
from maam.parity.stages.gradients import compare_gradients, compare_trained_gradients
from maam.parity.stages.lattice import run_lattice
from maam.parity.stages.layers import compare_layers
from maam.parity.stages.steps import compare_steps, run_freely
from maam.parity.subject import Subject

Stage = Callable[[Subject, str], Findings]
STAGES: dict[str, Stage] = {
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
"""The stages by the names that `check` and `maam parity --stages` take."""

__all__ = ["STAGES"]
