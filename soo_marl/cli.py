"""``soo-marl <command>``: the command line over ``soo_marl.studies``.

Each command is a class in a module of its own in ``soo_marl.commands``. Only the one that is asked for is imported:
torch and what else a study needs take seconds to load.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import shlex
import sys
from collections.abc import Sequence

import soo_marl
from soo_marl.commands.output import unbreakable_output

COMMANDS = {
    "train": "Train honest and deceptive baselines, and measure what they do.",
    "classify": "Classify the agents of a trained study by their self-other overlap.",
    "profile": "Say how far deceptive agents lie from honest ones by their deception profiles.",
    "finetune": "Treat deceptive agents with overlap as an auxiliary loss, and the controls beside it.",
    "demo": "The main job: train, evaluate, classify, fine-tune and report, in one go.",
    "reproduce": "Reproduce the paper: every preset, method and control, on one page.",
    "sweep": "Train a study at every point of a grid or a random search, and say what mattered.",
    "report": "Draw the figures and write the page of any study anew, from what is on disk.",
    "llm": "Language models: the same overlap core turns them honest, and says when it did not.",
}
"""What each command is for; the command ``name`` is the class ``Name`` in the module ``soo_marl.commands.name``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 a fault of ours, 2 bad input, 130 interrupted).

    Raises:
        SystemExit: the options are none of the command's (status 2), or ask for help (status 0).
    """
    with unbreakable_output():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        return _overview(arguments)
    import tyro

    name, *options = arguments
    command = tyro.cli(
        getattr(importlib.import_module(f"soo_marl.commands.{name}"), name.capitalize()),
        prog=f"soo-marl {name}",
        args=options,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from soo_marl.commands.tables.terminal import carry_out

    again = [argument for argument in arguments if argument != "--no-resume"]
    return carry_out(
        lambda: command.run(shlex.join(["soo-marl", *arguments])), shlex.join(["soo-marl", *again]), "soo-marl"
    )


def _overview(arguments: Sequence[str]) -> int:
    """Help, version, or what is wrong where no command is named."""
    if arguments and not arguments[0].startswith("-"):
        alike = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        advice = f"did you mean {alike[0]}?" if alike else f"choose one of {', '.join(COMMANDS)}"
        print(f"soo-marl: there is no command {arguments[0]!a}; {advice}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(
        prog="soo-marl",
        description="Measure deception in learned agents by self-other overlap.",
        epilog="soo-marl COMMAND --help shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"soo-marl {soo_marl.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose)
    parser.parse_args(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
