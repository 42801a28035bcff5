"""The ``mrbench`` command. Importing this module loads neither torch nor pandas nor scipy."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from mrbench.cli import (
    attribute,
    check,
    checkpoints,
    cite,
    costs,
    data,
    doctor,
    export,
    import_,
    leaderboard,
    listing,
    new,
    paper,
    predict,
    report,
    run,
    score,
    show,
    stats,
    study,
    submit,
    sweep,
    train,
    tune,
    uncertainty,
    verify,
    volumes,
)
from mrbench.errors import MrbenchError

INTERRUPTED = 130
FULL_OR_FORBIDDEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}

app = typer.Typer(
    name="mrbench",
    help="A benchmark for MRI super-resolution. Start with: mrbench run --method bicubic --dataset sample --scale 4",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        import mrbench

        typer.echo(f"mrbench {mrbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A benchmark for MRI super-resolution."""


app.command("run")(run.run)
app.command("predict")(predict.predict)
app.command("score")(score.score)
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("sweep")(sweep.sweep)
app.command("costs")(costs.costs)
app.command("verify")(verify.verify)
app.command("show")(show.show)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("submit")(submit.submit)
app.command("uncertainty")(uncertainty.uncertainty)
app.command("volumes")(volumes.volumes)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("stats")(stats.stats)
app.command("report")(report.report)
app.command("attribute")(attribute.attribute)
app.command("cite")(cite.cite)
app.command("paper")(paper.paper)
app.command("methods")(listing.methods)
app.command("datasets")(listing.datasets)
app.command("metrics")(listing.metrics)
app.command("degradations")(listing.degradations)
app.command("protocols")(listing.protocols)
app.command("plugins")(listing.plugins)
app.command("doctor")(doctor.doctor)
app.command("pull")(checkpoints.pull)
app.command("push")(checkpoints.push)
app.add_typer(check.app, name="check")
app.add_typer(new.app, name="new")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def main() -> None:
    """Entry point. A user's mistake ends with one message and exit code 2; Ctrl-C with 130; a bug with its traceback."""
    try:
        app(prog_name="mrbench")
    except BrokenPipeError:  # e.g. `mrbench methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MrbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL_OR_FORBIDDEN:
            raise
        sys.stderr.write(f"error: {error}. What was finished is stored; the same command goes on once this is mended.\n")
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # Ctrl-C, as typer reports it
            sys.stderr.write("stopped. What was finished is stored; the same command goes on from there.\n")
        raise


if __name__ == "__main__":
    main()
