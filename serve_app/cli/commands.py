"""The commands of `darkroom` and their options."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_app.cli.environment import prepare_environment
from serve_app.cli.front_end import FrontEnd, choose_front_end
from serve_app.cli.keys_commands import keys_app
from serve_app.cli.messages import print_answer, print_mistakes
from serve_app.errors import ConfigError, DarkroomError
from serve_app.models.paused_gc import paused_gc

PACKAGE = Path(__file__).parents[1]
IN_WHEEL, IN_CHECKOUT = PACKAGE / "configs" / "local.yaml", PACKAGE.parent / "configs" / "local.yaml"

app = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text-to-image serving on Ray Serve.",
)
app.add_typer(keys_app, name="keys")


AddressOption = Annotated[
    str | None,
    typer.Option(
        help="A running Ray cluster: host:port, or auto for the one on this machine. It is left running. "
        "Without this option, Darkroom starts a Ray cluster on this machine, and ends it."
    ),
]
FrontEndOption = Annotated[
    FrontEnd | None,
    typer.Option(
        help="What answers HTTP in a cluster that is started here. By default: HAProxy for models on GPUs, "
        "Serve's Python proxy otherwise.",
        show_default=False,
    ),
]


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="A Serve config file, such as configs/prod.yaml.", show_default=False)],
    ignore_paths: Annotated[
        bool,
        typer.Option(
            "--ignore-paths",
            help="Accept paths of models that do not exist on this machine: another one serves the file.",
        ),
    ] = False,
) -> None:
    """Check a config file. No model is loaded.

    Prints one line for each mistake, and exits with 1 if there is one.
    """
    prepare_environment()
    read_sound(config, ignore_paths=ignore_paths)
    print_answer(f"{config}: valid")


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Argument(help="A Serve config file. Without one, the built-in model is served.", show_default=False),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on, instead of the file's.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port to listen on, instead of the file's.")
    ] = None,
    address: AddressOption = None,
    front_end: FrontEndOption = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Start Ray's dashboard in the cluster, too.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the log lines of Ray, Serve and the replicas on standard error.")
    ] = False,
) -> None:
    """Serve a config file until Ctrl+C or SIGTERM.

    Checks the file first. Prints one line with the address when all models are loaded.
    """
    if address is not None and front_end is not None:
        raise typer.BadParameter("the cluster at --address has its own front end", param_hint="--front-end")
    path = config or builtin_config()
    chosen = choose_front_end(path, front_end)
    prepare_environment(own_cluster=address is None, verbose=verbose, front_end=chosen)
    # Without --address this machine serves the file, so its paths must exist here.
    document = read_sound(path, ignore_paths=address is not None)
    with paused_gc():
        from serve_app.cli.run_server import ServerOptions, run_server  # it takes a second, as it imports Ray

    options = ServerOptions(host=host, port=port, address=address, dashboard=dashboard, verbose=verbose)
    try:
        run_server(document, options)
    except DarkroomError as error:
        print_mistakes(path, str(error))
        raise typer.Exit(1) from error


def read_sound(path: Path, *, ignore_paths: bool) -> Mapping[str, Any]:
    """The content of a config file. Exits with 1 if it has mistakes, and prints them."""
    with paused_gc():
        from serve_app.cli.check_file import check_file  # it takes a second, which --help does not need

    try:
        return check_file(path, ignore_paths=ignore_paths)
    except ConfigError as error:
        print_mistakes(path, str(error))
        raise typer.Exit(1) from error


def builtin_config() -> Path:
    """The config of the built-in model: in the package of a wheel, beside the package in a checkout."""
    path = IN_WHEEL if IN_WHEEL.exists() else IN_CHECKOUT
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def main() -> None:
    """The entry point `darkroom`."""
    app()
