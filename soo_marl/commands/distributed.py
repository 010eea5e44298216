"""``accelerate launch -m soo_marl.commands.distributed``: one model of a study, by several processes."""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import tyro

from soo_marl.commands.tables.terminal import carry_out, say
from soo_marl.llm.study.distributed import Accelerated, train_together

_LONGEST_WAIT = timedelta(hours=3)
"""How long processes wait for each other; torch's ten minutes do not load every model."""


@dataclass(frozen=True)
class Train:
    """Train one model of a study that soo-marl llm finetune --prepare-only has written, in several processes."""

    study: tyro.conf.Positional[Path]
    """Study directory."""
    label: str
    """The treatment."""
    seed: int = 0
    """Its seed."""

    def run(self) -> None:
        """Carry out the command."""
        try:
            accelerate = importlib.import_module("accelerate")
        except ImportError as error:
            raise ValueError('language models need the extra: pip install "soo-marl[llm]"') from error
        # Asked for a GPU, accelerate would start every process on its own where there is none.
        on_cpu = not torch.accelerator.is_available()
        # The others wait as long as the first one loads.
        patience = accelerate.InitProcessGroupKwargs(timeout=_LONGEST_WAIT)
        accelerator = accelerate.Accelerator(cpu=on_cpu, kwargs_handlers=[patience])
        try:
            processes = Accelerated(accelerator)
            new = train_together(
                self.study, self.label, self.seed, processes, lambda steps, total: say(f"step {steps:g} of {total}")
            )
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                say(f"{'Trained' if new else 'Trained already'}: {self.label} of seed {self.seed} in {self.study}")
        except KeyboardInterrupt:
            raise ValueError("interrupted; this training begins anew when it is run again") from None
        finally:
            # Spread weights in reference cycles keep threads of the group alive, with which python aborts as it ends.
            gc.collect()
            accelerator.end_training()


def main() -> int:
    """Run the command; returns the exit status (0 done, 2 bad input, 130 interrupted)."""
    command = tyro.cli(Train, prog="accelerate launch -m soo_marl.commands.distributed")
    return carry_out(command.run, "", "soo-marl")


if __name__ == "__main__":
    sys.exit(main())
