"""The commands of `maam`. The module of a command is imported when the command is called, to keep `--help` fast."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup


class Entry(NamedTuple):
    """A command in the list of commands.

    Attributes:
        location: "module:function" of its function; `maam COMMAND --help` shows the function's docstring.
        summary: one line for the list of commands.
    """

    location: str
    summary: str


COMMANDS = {
    "list": Entry("maam.cli.models:list_command", "List the presets with parameters and MACs"),
    "info": Entry("maam.cli.models:info", "Show the layers of a model and the options of a preset"),
    "train": Entry("maam.cli.train:train", "Train or fine-tune a model, or resume a run"),
    "runs": Entry("maam.cli.train:runs", "Compare the recipes and accuracies of runs"),
    "evaluate": Entry("maam.cli.predict:evaluate", "Measure the accuracy of a model on test images"),
    "predict": Entry("maam.cli.predict:predict", "Classify image files"),
    "maf": Entry("maam.cli.maf:maf", "Train or evaluate as the authors of MAF do"),
    "parity": Entry("maam.cli.parity:parity", "Check that a model computes the same in all frameworks"),
    "port": Entry("maam.cli.port:port", "Move the weights of your own model to the other framework"),
    "convert": Entry("maam.cli.models:convert", "Convert a weights file to another format or dtype"),
    "fuse": Entry("maam.cli.deploy:fuse", "Fuse batch norm and branch weights into convolutions"),
    "export": Entry("maam.cli.deploy:export", "Export a model to ONNX, OpenVINO and other formats"),
    "optimize": Entry("maam.cli.deploy:optimize", "Measure how much faster inference engines run a model"),
    "quantize": Entry("maam.cli.deploy:quantize", "Make an int8 model and measure its accuracy and speed"),
    "prune": Entry("maam.cli.deploy:prune", "Remove unimportant branches and channels"),
    "doctor": Entry("maam.cli.doctor:doctor", "Check the installation: versions, devices, backends"),
    "data": Entry("maam.cli.train:data", "Download CIFAR-10 or CIFAR-100"),
    "demo": Entry("maam.cli.demo:demo", "Train MAAM on digits and check it in all frameworks"),
}
SETTINGS: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}


class LazyGroup(TyperGroup):
    """A group whose commands are placeholders until they are called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name, the imported command and its arguments."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, None if name is None or placeholder is None else load_command(name), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; long summaries continue on the next line, where click would cut them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


def load_command(name: str) -> Any:
    """Import a command."""
    module, _, function = COMMANDS[name].location.partition(":")
    single = typer.Typer(add_completion=False, **SETTINGS)
    single.command(name)(getattr(import_module(module), function))
    return typer.main.get_command(single)


def _placeholder() -> None:
    """Do nothing: `LazyGroup` imports the command that is called."""


def _print_version(wanted: bool) -> None:
    if wanted:
        import maam

        typer.echo(f"maam {maam.__version__}")
        raise typer.Exit


application = typer.Typer(name="maam", cls=LazyGroup, no_args_is_help=True, **SETTINGS)
for _name, _entry in COMMANDS.items():
    application.command(_name, help=_entry.summary)(_placeholder)


@application.callback()
def _maam(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Attention modules for image classification, native in PyTorch and MindSpore."""
