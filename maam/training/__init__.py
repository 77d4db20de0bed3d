"""Training, evaluation and prediction with recipes, the same in all frameworks."""

from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Objective, OptimizerState, Runner, Trainer
from maam.training.attention_maps import AttentionMaps, attention_maps
from maam.training.compare import RunSummary, read_runs
from maam.training.evaluate import Evaluation, evaluate_file
from maam.training.loop import Observer
from maam.training.predict import Prediction, predict_files
from maam.training.recipe import Recipe
from maam.training.recipe_files import default_recipe, list_recipes, read_recipe
from maam.training.run import train
from maam.training.schedule import learning_rate, one_cycle

__all__ = [
    "AttentionMaps",
    "Evaluation",
    "Objective",
    "Observer",
    "Optimizer",
    "OptimizerState",
    "Prediction",
    "Recipe",
    "RunSummary",
    "Runner",
    "Trainer",
    "attention_maps",
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
