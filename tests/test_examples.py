"""The examples, from end to end."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from soo_marl.studies.learning import overlap_values
from soo_marl.studies.learning.overlap_values import ValueKey, measure_overlap

SHORTEST_PATH = Path(__file__).parents[1] / "examples" / "shortest_path.py"


def test_the_shortest_path_ends_at_the_value_that_a_study_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SHORTEST_PATH.read_text().splitlines()) <= 50
    example = runpy.run_path(str(SHORTEST_PATH))
    agents, game = example["train"](example["GAME"], updates=3), example["GAME"]
    values = example["measure"](agents, game)
    assert min(values) > 0 and len(set(values)) == 3
    # A study draws from streams of its own names: give it those of the example.
    for name, stream in (("BatchedPhysicalDeception", "measuring"), ("RandomStreams", "pairs")):
        monkeypatch.setattr(overlap_values, name, renamed(getattr(overlap_values, name), stream))
    found = measure_overlap(agents, game, 1, 100, pairings=("imagined_red",), layer_sets=("both",))
    assert found[ValueKey("kept", "both", "imagined_red")].pooled().tolist() == pytest.approx(values, rel=1e-5)


def renamed(made: Any, stream: str) -> Any:
    """The class with another stream than it is given: by name, or as the second of its arguments."""

    def make(*arguments: Any, **named: Any) -> Any:
        if named:
            return made(*arguments, stream=stream)
        return made(arguments[0], stream, *arguments[2:])

    return make
