"""Drawn starts, and what is refused as a state or as a configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from soo_marl.envs import PhysicalDeceptionConfig, PhysicalDeceptionState, preset
from soo_marl.envs.particle_world import draw_start

NOTHING = np.zeros((2, 2))


def test_starts_have_the_stated_shares_and_places() -> None:
    config = preset("trackable").replace(alone_share=0.3, trapped_start_share=0.2)
    generator = np.random.default_rng(0)
    starts = [draw_start(config, generator) for _ in range(3000)]
    assert np.mean([state.alone for state in starts]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([state.trapped for state in starts]) == pytest.approx(0.2, abs=0.04)
    assert np.mean([state.goal for state in starts]) == pytest.approx(0.5, abs=0.04)
    everything = np.array([[*state.positions, *state.landmarks] for state in starts])
    assert np.abs(everything).max() <= 0.825
    assert everything[:, 2:].std(axis=0) == pytest.approx(0.825 / np.sqrt(3), abs=0.03)
    plain = [state for state in starts if not state.trapped]
    apart = np.array([np.linalg.norm(state.positions[0] - state.positions[1]) for state in plain])
    assert apart.max() <= 0.35 and apart.mean() == pytest.approx(0.35 / 2, abs=0.02)
    for state in starts:
        assert not state.velocities.any()
        if state.trapped:
            np.testing.assert_array_equal(state.positions[0], state.landmarks[state.fake])


def test_paper_starts_lie_within_the_papers_sight() -> None:
    generator = np.random.default_rng(0)
    starts = [draw_start(preset("paper"), generator) for _ in range(200)]
    assert 0.1 < max(np.linalg.norm(state.positions[0] - state.positions[1]) for state in starts) <= 0.125


@pytest.mark.parametrize("name", ["positions", "velocities", "landmarks"])
@pytest.mark.parametrize("value", [np.zeros(4), np.full((2, 2), np.nan)])
def test_a_malformed_state_is_refused_by_name(name: str, value: Any) -> None:
    good = {"positions": NOTHING, "velocities": NOTHING, "landmarks": NOTHING}
    with pytest.raises(ValueError, match=name):
        PhysicalDeceptionState(**{**good, name: value}, goal=0)


def test_an_impossible_state_is_refused() -> None:
    with pytest.raises(ValueError, match="between the walls"):
        PhysicalDeceptionState(np.full((2, 2), 1.1), NOTHING, NOTHING, goal=0)
    with pytest.raises(ValueError, match="goal"):
        PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=2)
    with pytest.raises(ValueError, match="absent red"):
        PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=0, alone=True, trapped=True)
    with pytest.raises(ValueError, match="absent red"):
        PhysicalDeceptionState(NOTHING, np.full((2, 2), 0.1), NOTHING, goal=0, alone=True)


def test_unknown_fields_and_impossible_values_of_a_configuration_are_refused() -> None:
    with pytest.raises(ValidationError, match="sight"):
        PhysicalDeceptionConfig(sight=0.3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="integration"):
        preset("paper").replace(integration="leapfrog")
    with pytest.raises(ValidationError, match="alone_share"):
        preset("paper").replace(alone_share=0.7, trapped_start_share=0.7)
