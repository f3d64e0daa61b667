"""`darkroom`: the commands and their options."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.check_file import BUILTIN_CONFIG, check_file
from serve_app.errors import ConfigError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Text-to-image serving on Ray Serve.")

ConfigFile = Annotated[Path, typer.Argument(help="A Serve config file, such as configs/prod.yaml.", show_default=False)]


@app.callback()
def darkroom() -> None:
    """Text-to-image serving on Ray Serve."""


@app.command()
def check(config: ConfigFile) -> None:
    """Check a config file: one line for each mistake, and exit code 1 if there is any."""
    checked = check_file(config)
    for line in checked.warnings:
        typer.echo(f"{config}: warning: {line}", err=True)
    for line in checked.mistakes:
        typer.echo(f"{config}: {line}", err=True)
    if checked.mistakes:
        raise typer.Exit(1)
    typer.echo(f"{config}: valid")


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Argument(help="A Serve config file. Without it, the built-in model is served.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address instead of the file's.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Listen on this port instead of the file's.", min=1, max=65535)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Use the Ray cluster at this address. By default a cluster of its own is started."),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard, too.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show the log lines of Ray and of all replicas.")] = False,
) -> None:
    """Check a config file, start it, print one line when it is ready, and serve until Ctrl+C or SIGTERM."""
    path = BUILTIN_CONFIG if config is None else config
    checked = check_file(path)
    for line in checked.mistakes:
        typer.echo(f"{path}: {line}", err=True)
    if checked.mistakes:
        raise typer.Exit(1)
    # Ray is imported only for a config that is sound: it takes a second.
    from serve_app.cli.run_server import ServerOptions, run_server

    options = ServerOptions(host=host, port=port, address=address, dashboard=dashboard, verbose=verbose)
    try:
        run_server(checked.document, options)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """The entry point `darkroom`."""
    sys.exit(app(prog_name="darkroom"))
