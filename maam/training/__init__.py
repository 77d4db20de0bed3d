"""Training, written once: recipes, the loop, and the protocol that a framework's room fulfils."""

from maam.training.comparison import RunSummary, read_runs
from maam.training.file_evaluation import evaluate_file
from maam.training.library import default_recipe, list_recipes, read_recipe
from maam.training.optimizer import Optimizer
from maam.training.prediction import Prediction, predict_files
from maam.training.protocol import Objective, Observer, OptimizerState, Runner, Trainer
from maam.training.recipe import Recipe
from maam.training.schedule import learning_rate, one_cycle
from maam.training.session import train

__all__ = [
    "Objective",
    "Observer",
    "Optimizer",
    "OptimizerState",
    "Prediction",
    "Recipe",
    "RunSummary",
    "Runner",
    "Trainer",
    "default_recipe",
    "evaluate_file",
    "learning_rate",
    "list_recipes",
    "one_cycle",
    "predict_files",
    "read_recipe",
    "read_runs",
    "train",
]
