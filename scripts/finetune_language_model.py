"""Fine-tune a language model with self-other overlap and its controls. Run again to continue."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.commands.tables.language import print_models
from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.llm.methods.recipes import recipe
from soo_marl.llm.model.models import check_usable
from soo_marl.llm.study.presets import treatment_study
from soo_marl.llm.study.study import open_language_study, run_language_study
from soo_marl.report.refresh import refresh


@dataclass
class Arguments:
    output: Path = Path("runs/llm")
    """Study directory; one that is there already is continued."""
    recipe: str = "embedded"
    """Name of a recipe: pairs, loss, adapter, dose."""
    methods: tuple[str, ...] = ("soo", "sham")
    """The overlap and its controls."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every treatment."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    config = treatment_study(recipe(arguments.recipe), arguments.methods, arguments.seeds)
    check_machine(arguments.compute)
    check_usable(config.model)
    directory = open_language_study(arguments.output, config)
    with directory.locked():
        summaries = run_language_study(config, directory, ProgressDisplay(), command, arguments.compute)
        refresh(directory.path)
    print_models(summaries, directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "finetune"))
