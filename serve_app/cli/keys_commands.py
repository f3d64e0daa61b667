"""`darkroom keys new|list|revoke`: the keys in a key file. A server that uses the file follows within two seconds."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from serve_app.cli.messages import print_answer, print_mistakes
from serve_app.errors import ConfigError

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of a key file.")

Name = Annotated[str, typer.Argument(help="The name of the key's owner.", show_default=False)]
File = Annotated[Path, typer.Option(help="The key file, `keys.file` of the ingress.")]
DEFAULT_FILE = Path("keys.json")


@keys_app.command()
def new(name: Name, file: File = DEFAULT_FILE) -> None:
    """Make a key. It is printed once: the file holds its hash. Limits can be added to its entry in the file."""
    from serve_app.api.key_file import add_key  # it takes a moment, which --help does not need

    try:
        print_answer(add_key(file, name))
    except ConfigError as error:
        _refuse(file, error)


@keys_app.command(name="list")
def list_keys(file: File = DEFAULT_FILE) -> None:
    """Print the name and the limits of each key."""
    from serve_app.api.keys import read_keys

    try:
        callers = read_keys(file)
    except ConfigError as error:
        _refuse(file, error)
    for caller in callers:
        print_answer(caller.model_dump_json(exclude={"sha256"}, exclude_unset=True))


@keys_app.command()
def revoke(name: Name, file: File = DEFAULT_FILE) -> None:
    """Take a key out of the file. Requests with it are refused from then on."""
    from serve_app.api.key_file import revoke_key

    try:
        revoke_key(file, name)
    except ConfigError as error:
        _refuse(file, error)
    print_answer(f"revoked {name}")


def _refuse(file: Path, error: ConfigError) -> NoReturn:
    print_mistakes(file, str(error).replace(f"{file}: ", ""))
    raise typer.Exit(1) from error
