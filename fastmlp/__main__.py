"""`python -m fastmlp`: the `fastmlp` command."""

from fastmlp.cli.app import app

if __name__ == "__main__":
    app(prog_name="fastmlp")
