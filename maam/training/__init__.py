"""Training, written once: recipes, the loop, and the protocol that a framework's room fulfils."""

from maam.training.library import default_recipe, list_recipes, read_recipe
from maam.training.optimizer import Optimizer
from maam.training.protocol import Objective, OptimizerState, Runner, Trainer
from maam.training.recipe import Recipe
from maam.training.schedule import learning_rate, one_cycle
from maam.training.session import train

__all__ = [
    "Objective",
    "Optimizer",
    "OptimizerState",
    "Recipe",
    "Runner",
    "Trainer",
    "default_recipe",
    "learning_rate",
    "list_recipes",
    "one_cycle",
    "read_recipe",
    "train",
]
