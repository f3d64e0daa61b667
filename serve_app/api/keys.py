"""`python -m serve_app.api.keys NAME`: make a key. It is printed once; the file keeps its hash."""

import argparse
import sys

from serve_app.api.callers import new_key


def main() -> None:
    """Print the key, and its line for the key file."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.api.keys", description=__doc__)
    parser.add_argument("name", help="who it is for")
    key, line = new_key(parser.parse_args().name)
    sys.stdout.write(f"key, shown this once: {key}\nentry for the key file's list: {line}\n")


if __name__ == "__main__":
    main()
