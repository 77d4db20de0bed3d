"""Reproduction of the tables and the figure of the MAAM paper (arXiv 2504.13574) from training runs."""

from benchmarks.paper.experiments import EXPERIMENTS, Experiment, Row
from benchmarks.paper.frameworks import read_sides, render_frameworks
from benchmarks.paper.pages import render
from benchmarks.paper.results import Result, Run, check_recipe, collect, run

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
