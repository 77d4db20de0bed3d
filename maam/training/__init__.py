"""Training, written once: what an optimizer means, the loop, and the protocol that a framework's room fulfils."""

from maam.training.optimizer import Optimizer
from maam.training.protocol import Runner, Trainer
from maam.training.schedule import one_cycle

__all__ = ["Optimizer", "Runner", "Trainer", "one_cycle"]
