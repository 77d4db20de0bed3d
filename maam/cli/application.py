"""All commands."""

from __future__ import annotations

import typer

from maam.cli import (
    bench,
    data,
    demo,
    doctor,
    evaluate,
    exporting,
    fusion,
    maf,
    models,
    optimization,
    parity,
    porting,
    predict,
    pruning,
    quantization,
    reproduce,
    runs,
    train,
    weights,
)

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
application.command("runs")(runs.runs)
application.command("evaluate")(evaluate.evaluate)
application.command("predict")(predict.predict)
application.command("maf")(maf.maf)
application.command("reproduce")(reproduce.reproduce)
application.command("parity")(parity.parity)
application.command("port")(porting.port)
application.command("convert")(weights.convert)
application.command("fuse")(fusion.fuse)
application.command("export")(exporting.export)
application.command("optimize")(optimization.optimize)
application.command("quantize")(quantization.quantize)
application.command("prune")(pruning.prune)
application.command("bench")(bench.bench)
application.command("doctor")(doctor.doctor)
application.command("data")(data.data)
application.command("demo")(demo.demo)
