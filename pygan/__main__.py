"""`python -m pygan`: the command line where no `pygan` is on the path."""

from pygan.cli import app

app(prog_name="pygan")
