"""All commands."""

from __future__ import annotations

import typer

from maam.cli import demo, deploy, doctor, maf, models, parity, predict, train

application = typer.Typer(
    name="maam",
    help="Attention modules for image classification, native in PyTorch and MindSpore.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
application.command("list")(models.list_command)
application.command("info")(models.info)
application.command("train")(train.train)
application.command("runs")(train.runs)
application.command("evaluate")(predict.evaluate)
application.command("predict")(predict.predict)
application.command("maf")(maf.maf)
application.command("parity")(parity.parity)
application.command("port")(parity.port)
application.command("convert")(models.convert)
application.command("fuse")(deploy.fuse)
application.command("export")(deploy.export)
application.command("optimize")(deploy.optimize)
application.command("quantize")(deploy.quantize)
application.command("prune")(deploy.prune)
application.command("doctor")(doctor.doctor)
application.command("data")(train.data)
application.command("demo")(demo.demo)
