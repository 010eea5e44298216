from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soo_marl.deception import (
    DeceptionProfile,
    Trajectories,
    deception_profile,
    rubric_rate,
    rubric_steps,
)

FIELDS = ("counts", "opportunities", "total_opportunities")


def coarse(
    leading: tuple[int, ...], steps: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32, spacing: float = 0.25
) -> Trajectories:
    """Random episodes on a coarse grid: blue often stands still or on a landmark, and cosines of 1, 0 and -1 abound."""
    generator = torch.Generator().manual_seed(seed)
    states = (*leading, steps + 1)

    def places(*shape: int) -> Tensor:
        return torch.randint(-3, 4, (*shape, 2), generator=generator).to(dtype) * spacing

    def flags(*shape: int, share: float) -> Tensor:
        return torch.rand(shape, generator=generator) < share

    return Trajectories(
        blue_position=places(*states),
        red_position=places(*states),
        landmarks=places(*leading, 2),
        goal=torch.randint(0, 2, leading, generator=generator),
        trapped=flags(*states, share=0.2),
        alone=flags(*leading, share=0.2),
        red_in_sight=flags(*states, share=0.7),
        blue_in_sight=flags(*states, share=0.5),
    )


def naive(trajectories: Trajectories, x: list[float], y: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, opportunities below y and all opportunities, threshold by threshold."""
    steps = rubric_steps(trajectories)
    counts = [[steps.deceptive(above, below).sum((-2, -1)) for below in y] for above in x]
    opportunities = [(steps.opportunity & (steps.cosine_between < below)).sum((-2, -1)) for below in y]
    grid = torch.stack([torch.stack(row, -1) for row in counts], -2)
    return grid, torch.stack(opportunities, -1), steps.opportunity.sum((-2, -1))


def check_against_naive(trajectories: Trajectories, x: list[float], y: list[float]) -> DeceptionProfile:
    profile = deception_profile(trajectories, x, y)
    for name, expected in zip(FIELDS, naive(trajectories, x, y), strict=True):
        assert torch.equal(getattr(profile, name), expected), name
    return profile


@pytest.mark.parametrize("leading", [(40,), (3, 20), (2, 2, 15)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_those_of_the_rubric_at_every_threshold(leading: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = [0.0, 0.1, 0.3, 0.6, 0.8, 0.95, 1.0], [-1.0, -0.6, 0.0, 0.2, 0.9, 1.0]
    profile = check_against_naive(coarse(leading, dtype=dtype), x, y)
    assert profile.leading_shape == leading[:-1] and profile.counts.sum() > 100
    assert profile.projection_thresholds.tolist() == x and profile.cosine_thresholds.tolist() == y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_exactly_on_thresholds_are_not_counted(dtype: torch.dtype) -> None:
    # Every value that occurs is a threshold, so each step lies exactly on one of either kind. Spacing 0.1 makes them
    # values that differ between the two floating-point types.
    trajectories = coarse((2, 30), dtype=dtype, spacing=0.1)
    steps = rubric_steps(trajectories)
    x, y = (
        sorted(set(values[~values.isnan()].tolist()))
        for values in (steps.projection_on_fake[steps.towards_fake], steps.cosine_between)
    )
    assert len(x) > 20 and len(y) > 20
    on = check_against_naive(trajectories, x, y)
    # A plain number takes the type of the tensor that it is compared with: in float32 these are the same thresholds.
    nearly = [sorted({number * (1 - 1e-9) for number in thresholds}) for thresholds in (x, y)]
    off = check_against_naive(trajectories, *nearly)
    assert torch.equal(on.counts, off.counts) is (dtype == torch.float32)


def test_by_hand() -> None:
    # From (0, 0) to (0.3, 0.4): 0.8 towards the fake at (0, 1), 0.6 towards the goal at (1, 0), a right angle between.
    # Then it stands still, and then goes from (0.3, 0.4) straight on to the goal.
    points = torch.tensor([(0, 0), (0.3, 0.4), (0.3, 0.4), (0.65, 0.2)], dtype=torch.float64)
    trajectories = Trajectories(
        blue_position=points[None, None],
        red_position=torch.zeros(1, 1, 4, 2),
        landmarks=torch.tensor([[[(0.0, 1.0), (1.0, 0.0)]]], dtype=torch.float64),
        goal=torch.ones(1, 1, dtype=torch.int64),
        trapped=torch.zeros(1, 1, 4).bool(),
        alone=torch.zeros(1, 1).bool(),
        red_in_sight=torch.ones(1, 1, 4).bool(),
        blue_in_sight=torch.ones(1, 1, 4).bool(),
    )
    # Between the directions of the last step: (0.7 * -0.3 - 0.4 * 0.6) / (0.806 * 0.671) = -0.832.
    profile = deception_profile(trajectories, [0, 0.75, 0.85], [-0.9, -0.8, 0, 0.1])
    assert profile.counts.tolist() == [[[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]]
    assert profile.opportunities.tolist() == [[0, 1, 1, 2]] and profile.total_opportunities.tolist() == [2]
    assert profile.rates[0, 0].tolist() == [0, 0, 0, 0.5]


def test_default_grids_are_those_of_the_paper() -> None:
    profile = deception_profile(coarse((2, 5)))
    assert profile.counts.shape == (2, 100, 100)
    torch.testing.assert_close(profile.projection_thresholds, torch.linspace(0, 1, 100, dtype=torch.float64))
    torch.testing.assert_close(profile.cosine_thresholds, torch.linspace(-1, 1, 100, dtype=torch.float64))
    for name, expected in zip(
        FIELDS,
        naive(coarse((2, 5)), profile.projection_thresholds.tolist(), profile.cosine_thresholds.tolist()),
        strict=True,
    ):
        assert torch.equal(getattr(profile, name), expected), name


def test_runs_without_opportunity_have_no_rates() -> None:
    trajectories = coarse((3, 10))
    sight = trajectories.red_in_sight.clone()
    sight[1] = False
    profile = check_against_naive(replace(trajectories, red_in_sight=sight), [0, 0.5], [0, 1])
    assert profile.total_opportunities[1] == 0 and profile.counts[1].sum() == 0
    assert profile.rates.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert not profile.rates[[0, 2]].isnan().any()


def test_joining() -> None:
    trajectories = coarse((4, 10))
    whole = deception_profile(trajectories, [0, 0.5], [0, 0.5, 1])
    joined = DeceptionProfile.join(
        [deception_profile(trajectories[part], [0, 0.5], [0, 0.5, 1]) for part in (slice(1), slice(1, None))]
    )
    for name in FIELDS:
        assert torch.equal(getattr(joined, name), getattr(whole, name)), name
    with pytest.raises(ValueError, match="different thresholds cannot be joined"):
        DeceptionProfile.join([whole, deception_profile(trajectories, [0, 0.6], [0, 0.5, 1])])
    with pytest.raises(ValueError, match="no profiles to join"):
        DeceptionProfile.join([])


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.5, 0.1], [0.0, float("nan")], [float("-inf"), 0.0]])
@pytest.mark.parametrize("name", ["projection_thresholds", "cosine_thresholds"])
def test_thresholds_must_ascend(name: str, thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and strictly ascending"):
        deception_profile(coarse((2, 2)), **{name: thresholds})  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    trajectories = coarse((2, 2))
    with pytest.raises(ValueError, match="cosine_thresholds must be one-dimensional"):
        deception_profile(trajectories, cosine_thresholds=[])
    with pytest.raises(ValueError, match="projection_thresholds must be one-dimensional"):
        deception_profile(trajectories, projection_thresholds=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="episode dimension"):
        deception_profile(trajectories[0, 0])
    profile = deception_profile(trajectories, [0.0, 0.5], [0.0, 1.0])
    for changes, message in (
        ({"counts": profile.counts[:, :1]}, r"counts must have the shape \(2, 2, 2\)"),
        ({"opportunities": profile.opportunities[:1]}, r"opportunities must have the shape \(2, 2\)"),
        ({"counts": profile.counts.float()}, "counts must be of type int64"),
        ({"total_opportunities": profile.total_opportunities.float()}, "total_opportunities must be of type int64"),
        ({"projection_thresholds": torch.tensor([0.0, 0.5])}, "projection_thresholds must be one-dimensional, float64"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(profile, **changes)


ascending = st.lists(st.integers(-12, 12), min_size=1, max_size=6, unique=True).map(
    lambda numbers: [number / 10 for number in sorted(numbers)]
)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 8), ascending, ascending)
@settings(deadline=None, max_examples=60)
def test_profiles_fall_with_x_rise_with_y_and_agree_with_the_rubric(
    seed: int, episodes: int, steps: int, x: list[float], y: list[float]
) -> None:
    trajectories = coarse((2, episodes), steps, seed)
    profile = check_against_naive(trajectories, x, y)
    assert (profile.counts.diff(dim=-2) <= 0).all() and (profile.counts.diff(dim=-1) >= 0).all()
    assert (profile.counts <= profile.opportunities[..., None, :]).all()
    assert (profile.opportunities <= profile.total_opportunities[..., None]).all()

    # All that the corner (0, 1) leaves out of the rubric rate: steps away from both landmarks, and a cosine of 1.
    rubric = rubric_steps(trajectories)
    left_out = rubric.towards_fake & ((rubric.projection_on_fake <= 0) | (rubric.cosine_between == 1))
    corner = deception_profile(trajectories, [0], [1])
    share = (corner.counts[:, 0, 0] + left_out.sum((-2, -1))) / corner.total_opportunities
    torch.testing.assert_close(share, rubric_rate(trajectories), equal_nan=True)
    loosest = deception_profile(trajectories, [-1], [2]).rates[:, 0, 0]
    torch.testing.assert_close(loosest.float(), rubric_rate(trajectories), equal_nan=True)
