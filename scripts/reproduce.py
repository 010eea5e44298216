"""Reproduce the paper preset by preset: train, classify, fine-tune, take profiles, one page. Run again to continue."""

import shlex
import sys

import tyro

from soo_marl.commands.reproduce import Reproduce
from soo_marl.commands.tables.terminal import carry_out

if __name__ == "__main__":
    command = tyro.cli(Reproduce, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    line = shlex.join(["python", *sys.argv])
    sys.exit(carry_out(lambda: command.run(line), line, "reproduce"))
