"""`python -m serve_app` is the command `darkroom`."""

from serve_app.cli.commands import main

if __name__ == "__main__":
    main()
