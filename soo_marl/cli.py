"""``soo-marl <command>``, and what each of ``scripts/`` calls.

Each command is a class in a module of ``soo_marl.commands``: its fields are the options, and ``run`` does it. Only the
one that is asked for is imported: torch and what else a study needs take seconds to load.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import soo_marl
from soo_marl.commands.tables.output import unbreakable_output

COMMANDS: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "commands" / "help.toml").read_text(encoding="utf-8")
)
"""Purpose and examples by name; ``llm demo`` is the class ``LlmDemo`` in the module ``soo_marl.commands.llm``."""

_COMPLETION = "--tyro-print-completion"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 a fault of ours, 2 bad input, 130 interrupted).

    Raises:
        SystemExit: the options are none of the command's (status 2), or ask for help (status 0).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with unbreakable_output():
        for words in (1, 2):
            name = " ".join(given[:words])
            if name in COMMANDS:
                return _run(name, given[words:], ["soo-marl", *given[:words]], "soo-marl")
        return _overview(given)


def script(name: str) -> NoReturn:
    """Run a command with the options of this process, as a script in ``scripts/`` does, and end the process."""
    with unbreakable_output():
        sys.exit(_run(name, sys.argv[1:], ["python", sys.argv[0]], Path(sys.argv[0]).stem))


def _run(name: str, options: Sequence[str], called: Sequence[str], program: str) -> int:
    """Run the command of a name; ``called`` is what was typed before its options."""
    try:
        import tyro

        from soo_marl.commands.tables.terminal import carry_out, say

        command_class = load_command(name)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted before anything was begun", file=sys.stderr)
        return 130

    def do() -> None:
        command = tyro.cli(
            command_class,
            prog=shlex.join(called),
            description="\n    ".join([COMMANDS[name]["purpose"], "\nExamples:", *COMMANDS[name]["examples"]]),
            args=options,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
        )
        say(f"Next:    {command.run(shlex.join([*called, *options]))}")

    again = [*called, *(option for option in options if option != "--no-resume")]
    return carry_out(do, shlex.join(again), program)


def load_command(name: str) -> Any:
    """The class of a command."""
    module = importlib.import_module(f"soo_marl.commands.{name.split()[0]}")
    return getattr(module, name.title().replace(" ", ""))


def _overview(arguments: Sequence[str]) -> int:
    """Help, version, completion, or what is wrong where no command is named."""
    first, second = [*arguments, "", ""][:2]
    if first == _COMPLETION and second in ("bash", "zsh"):
        _print_completion(second)
    group = [name for name in COMMANDS if name.startswith(f"{first} ")]
    options = arguments[1:] if group else arguments
    if options and not options[0].startswith("-"):
        wrong = " ".join(arguments[: 2 if group else 1])
        alike = difflib.get_close_matches(wrong, COMMANDS, n=1)
        advice = f"did you mean {alike[0]}?" if alike else f"choose one of {', '.join(group or COMMANDS)}"
        print(f"soo-marl: there is no command {wrong!a}; {advice}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(
        prog=f"soo-marl {first}" if group else "soo-marl",
        description="Measure deception in learned agents by self-other overlap.",
        epilog="soo-marl COMMAND --help shows the options of a command, and examples.",
    )
    parser.add_argument(_COMPLETION, choices=("bash", "zsh"), help="print what this shell needs to complete commands")
    parser.add_argument("--version", action="version", version=f"soo-marl {soo_marl.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in group or COMMANDS:
        commands.add_parser(name.removeprefix(f"{first} "), help=COMMANDS[name]["purpose"])
    parser.parse_args(options)
    return 0


def _print_completion(shell: str) -> NoReturn:
    """Print what a shell needs to complete commands, options and choices."""
    import tyro

    groups = {"": tyro.extras.SubcommandApp()}
    for name in COMMANDS:
        group, _, last = f" {name}".rpartition(" ")
        if group.strip() not in groups:
            groups[group.strip()] = tyro.extras.SubcommandApp()
            groups[""].command(groups[group.strip()], name=group.strip())
        groups[group.strip()].command(load_command(name), name=last)
    groups[""].cli(prog="soo-marl", args=[_COMPLETION, shell], config=(tyro.conf.OmitArgPrefixes,))
    raise AssertionError("tyro ends the process once it has printed")


if __name__ == "__main__":
    sys.exit(main())
