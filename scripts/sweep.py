"""Train a baseline study at every point of a grid or a random search, and say what mattered. Run again to continue."""

import shlex
import sys

import tyro

from soo_marl.commands.sweep import Sweep
from soo_marl.commands.tables.terminal import carry_out

if __name__ == "__main__":
    command = tyro.cli(Sweep, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    line = shlex.join(["python", *sys.argv])
    sys.exit(carry_out(lambda: command.run(line), line, "sweep"))
