"""The tables and the figure of the MAAM paper (arXiv 2504.13574), made again."""

from maam.reproduction.experiments import EXPERIMENTS, Experiment, Row
from maam.reproduction.frameworks import read_sides, render_frameworks
from maam.reproduction.rendering import render
from maam.reproduction.results import Result, Run, check_recipe, collect, run

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Result",
    "Row",
    "Run",
    "check_recipe",
    "collect",
    "read_sides",
    "render",
    "render_frameworks",
    "run",
]
