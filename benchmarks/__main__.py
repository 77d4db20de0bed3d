"""The command line `python -m benchmarks COMMAND`, run from the root of the repository."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import typer

from maam.errors import MaamError

PROGRAM = "python -m benchmarks"
COMMANDS = {
    "cost": ("benchmarks.cost.command", "measure CPU time and memory of layers and models"),
    "attention": ("benchmarks.variants", "compare attention modules in one small network: accuracy, cost, latency"),
    "parts": (
        "benchmarks.variants",
        "compare branches, kernels and fusions of MAAM in one small network, as attention",
    ),
    "training-step": ("benchmarks.training_step", "measure the CPU time of a training step in each framework"),
    "share": ("benchmarks.share", "measure every engine as a share of the processor's rate of matrix products"),
    "layer-times": ("benchmarks.layer_times", "measure the time of each layer of a network in OpenVINO"),
    "networks": ("benchmarks.networks", "show accuracy on CIFAR-10 versus the CPU time that share measured"),
    "gpu": ("benchmarks.gpu", "check and measure the PyTorch backend on a GPU, in at most 8 minutes"),
    "weighted-sum": ("benchmarks.weighted_sum", "measure implementations of equation 2 of the MAAM paper"),
    "weighted-sum-in-training": ("benchmarks.weighted_sum", "measure these implementations in whole training steps"),
    "paper": ("benchmarks.paper.command", "reproduce the tables and the figure of the MAAM paper"),
    "halves": ("benchmarks.halves", "write CIFAR-10 as two image folders, to train on one and fine-tune on the other"),
    "publish-runs": ("benchmarks.publish", "copy runs into the documentation, without weights"),
    "publish-weights": ("benchmarks.publish", "write the weights of a run as pretrained weights of the package"),
    "parity-table": ("benchmarks.publish", "print reports of `maam parity --json` as a Markdown table"),
    "maf-outputs": ("benchmarks.maf_outputs", "compare the MAF networks with the outputs of their authors' code"),
    "fused-presets": ("benchmarks.fusion", "compare each preset with its fused form on CIFAR-10"),
    "graph-nodes": ("benchmarks.fusion", "count the nodes of a model's graph before and after fusion"),
    "sums": ("benchmarks.rounding", "measure rounding errors of float32 sums in each framework"),
    "kinks": ("benchmarks.rounding", "compare float32 gradients before and after kinks are settled"),
    "pairs": ("benchmarks.pairs", "compare MindCV's networks with torchvision's and timm's of the same name"),
    "mindspore-errors": ("benchmarks.rounding", "measure errors of MindSpore's own tanh and Adam"),
}
"""The module of each command, whose function has the name of the command, and a summary."""


def main() -> None:
    """Run the command named by the first argument."""
    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        lines = (f"  {command:{width}}  {summary}" for command, (_, summary) in COMMANDS.items())
        print(f"Usage: {PROGRAM} COMMAND [ARGS]...", "", *lines, "", f"Help: {PROGRAM} COMMAND --help", sep="\n")
        return
    if name not in COMMANDS:
        _fail(f"unknown command {name[:60]!r}; expected one of {', '.join(COMMANDS)}")
    command = getattr(import_module(COMMANDS[name][0]), name.replace("-", "_"))
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    application.command()(command)
    from maam.cli.terminal import quiet_mindspore  # imports NumPy, which reads what a command sets on import

    try:
        with quiet_mindspore():
            application(args=arguments, prog_name=f"{PROGRAM} {name}")
    except MaamError as error:
        _fail(str(error))
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))


def _fail(message: str) -> NoReturn:
    print(f"benchmarks: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
