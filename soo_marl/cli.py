"""``soo-marl <command>``: the command line over ``soo_marl.studies``. Each command is in ``soo_marl.commands``."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import tyro

from soo_marl.commands.classify import Classify
from soo_marl.commands.demo import Demo
from soo_marl.commands.finetune import Finetune
from soo_marl.commands.llm import Llm
from soo_marl.commands.profile import Profile
from soo_marl.commands.report import Report
from soo_marl.commands.reproduce import Reproduce
from soo_marl.commands.sweep import Sweep
from soo_marl.commands.train import Train
from soo_marl.report.terminal import carry_out
from soo_marl.studies.files import quoted


class Command(Protocol):
    """What every command can do."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""


COMMANDS: dict[str, Callable[..., Command]] = {
    "train": Train,
    "classify": Classify,
    "profile": Profile,
    "finetune": Finetune,
    "demo": Demo,
    "reproduce": Reproduce,
    "sweep": Sweep,
    "report": Report,
    "llm": Llm,
}
"""All commands by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 2 bad input, 130 interrupted).

    Raises:
        SystemExit: the options are none of the command's (status 2), or ask for help (status 0).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        return carry_out(lambda: _refuse(arguments[0]), "", "soo-marl")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="soo-marl",
        description="Measure deception in learned agents by self-other overlap.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    again = [argument for argument in arguments if argument != "--no-resume"]
    return carry_out(
        lambda: command.run(shlex.join(["soo-marl", *arguments])), shlex.join(["soo-marl", *again]), "soo-marl"
    )


def _refuse(name: str) -> None:
    alike = difflib.get_close_matches(name, COMMANDS, n=1)
    advice = f"did you mean {alike[0]}?" if alike else f"choose one of {', '.join(COMMANDS)}"
    raise ValueError(f"there is no command {quoted(repr(name))}; {advice}")


if __name__ == "__main__":
    sys.exit(main())
