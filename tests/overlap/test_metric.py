import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from soo_marl.overlap import EpisodeSums, OverlapForm, episode_sums, overlap, power, squared_error

SELF = {"first": torch.tensor([[1.0, 2.0], [0.0, 0.0]]), "second": torch.tensor([[1.0], [2.0]])}
OTHER = {"first": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "second": torch.tensor([[3.0], [2.0]])}
# position 0: errors 0, 4, 4 -> 8/3; squares 1, 4, 1 and 1, 0, 9 -> 16/6. position 1: 0; squares 4 and 4 -> 8/6.

FORMS: tuple[OverlapForm, ...] = ("raw", "log", "normalised")


def activations(seed: int, shape: tuple[int, ...] = (3, 5), units: tuple[int, ...] = (4, 2)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {str(k): torch.randn(*shape, size, generator=generator, dtype=torch.float64) for k, size in enumerate(units)}


def test_squared_error_and_power_weigh_layers_by_their_units() -> None:
    torch.testing.assert_close(squared_error(SELF, OTHER), torch.tensor([8 / 3, 0.0]))
    torch.testing.assert_close(power(SELF, OTHER), torch.tensor([16 / 6, 8 / 6]))


def test_forms_by_hand() -> None:
    assert overlap(SELF, OTHER).item() == pytest.approx(4 / 3)
    assert overlap(SELF, OTHER, form="log").item() == pytest.approx((math.log(8 / 3) + math.log(1e-25)) / 2)
    assert overlap(SELF, OTHER, form="normalised").item() == pytest.approx((8 / 3) / 4)


def test_one_layer_by_hand() -> None:
    assert overlap({"second": SELF["second"]}, {"second": OTHER["second"]}).item() == pytest.approx(2)


def test_concatenating_layers_changes_nothing() -> None:
    first, second = activations(0), activations(1)
    joined = [{"all": torch.cat(list(side.values()), -1)} for side in (first, second)]
    for form in FORMS:
        torch.testing.assert_close(overlap(first, second, form=form), overlap(*joined, form=form))


def test_mask_selects_positions_whatever_the_others_hold() -> None:
    first, second = activations(0), activations(1)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    spoiled = {name: torch.where(mask[..., None], layer, torch.nan) for name, layer in first.items()}
    for form in FORMS:
        selected = overlap({k: v[mask] for k, v in first.items()}, {k: v[mask] for k, v in second.items()}, form=form)
        torch.testing.assert_close(overlap(spoiled, second, mask, form), selected)
        torch.testing.assert_close(overlap(spoiled, second, mask.long(), form), selected)


def test_runs_are_kept_and_equal_to_their_values_alone() -> None:
    first, second = activations(0), activations(1)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    for form in FORMS:
        stacked = overlap(first, second, mask, form, run_dims=1)
        assert stacked.shape == (3,)
        assert stacked[1].isnan()
        for run in (0, 2):
            alone = overlap(
                {k: v[run] for k, v in first.items()}, {k: v[run] for k, v in second.items()}, mask[run], form
            )
            torch.testing.assert_close(stacked[run], alone)


def test_mask_broadcasts_only_along_sizes_of_one() -> None:
    first, second = activations(0), activations(1)
    token_mask = torch.tensor([[True, True, False, False, False]])
    expected = overlap({k: v[:, :2] for k, v in first.items()}, {k: v[:, :2] for k, v in second.items()})
    torch.testing.assert_close(overlap(first, second, token_mask), expected)
    for shape in ((5,), (3,), (3, 4), (1, 3, 5)):
        with pytest.raises(ValueError, match="mask must be shaped like the positions"):
            overlap(first, second, torch.ones(shape).bool())


@pytest.mark.parametrize("form", FORMS)
def test_no_valid_position_is_missing(form: OverlapForm) -> None:
    assert overlap(SELF, OTHER, torch.zeros(2).bool(), form).isnan()
    empty = {"layer": torch.zeros(4, 0, 3)}
    assert overlap(empty, empty, form=form, run_dims=1).isnan().tolist() == [True] * 4


def test_normalised_value_of_opposite_and_of_orthogonal_activations() -> None:
    first = {"layer": torch.tensor([[1.0, 0.0]])}
    assert overlap(first, {"layer": torch.tensor([[-1.0, 0.0]])}, form="normalised") == 4
    assert overlap(first, {"layer": torch.tensor([[0.0, 1.0]])}, form="normalised") == 2
    zeros = {"layer": torch.zeros(1, 2)}
    assert overlap(zeros, zeros, form="normalised").isnan()


def test_half_precision_differences_do_not_underflow() -> None:
    first = {"layer": torch.full((1, 2), 1e-4, dtype=torch.float16)}
    second = {"layer": torch.zeros(1, 2, dtype=torch.float16)}
    assert overlap(first, second).item() == pytest.approx(1e-8, rel=1e-2)


floats = st.floats(-10, 10, width=32)


@given(hnp.arrays(np.float64, (2, 4, 3), elements=floats), st.floats(0.1, 100))
@settings(deadline=None)
def test_invariants(values: np.ndarray, scale: float) -> None:
    first, second = ({"layer": layer} for layer in torch.from_numpy(values))
    assert overlap(first, first) == 0
    for form in FORMS:
        torch.testing.assert_close(overlap(first, second, form=form), overlap(second, first, form=form), equal_nan=True)
        shuffled = [{"layer": side["layer"][:, [2, 0, 1]]} for side in (first, second)]
        torch.testing.assert_close(overlap(first, second, form=form), overlap(*shuffled, form=form), equal_nan=True)
        shuffled = [{"layer": side["layer"][[3, 1, 0, 2]]} for side in (first, second)]
        torch.testing.assert_close(overlap(first, second, form=form), overlap(*shuffled, form=form), equal_nan=True)
    scaled = [{"layer": side["layer"] * scale} for side in (first, second)]
    torch.testing.assert_close(
        overlap(first, second, form="normalised"), overlap(*scaled, form="normalised"), equal_nan=True
    )
    torch.testing.assert_close(overlap(first, second) * scale**2, overlap(*scaled))
    normalised = overlap(first, second, form="normalised")
    assert normalised.isnan() or 0 <= normalised <= 4 + 1e-9


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same layers"):
        overlap(SELF, {"first": OTHER["first"]})
    with pytest.raises(ValueError, match="same layers"):
        overlap({}, {})
    with pytest.raises(ValueError, match="align"):
        overlap({"layer": torch.zeros(2, 5, 3)}, {"layer": torch.zeros(2, 4, 3)})
    uneven = {"first": torch.zeros(2, 5, 3), "second": torch.zeros(2, 4, 3)}
    with pytest.raises(ValueError, match="differ in more than their units"):
        overlap(uneven, uneven)
    with pytest.raises(ValueError, match="cannot keep 2"):
        overlap(SELF, OTHER, run_dims=2)
    with pytest.raises(ValueError, match="form"):
        overlap(SELF, OTHER, form="cosine")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_episode_sums_pool_to_the_overlap_of_the_same_steps(form: OverlapForm) -> None:
    shape = (2, 3, 4, 6)  # runs, evaluation seeds, episodes, steps
    first, second = activations(0, shape), activations(1, shape)
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(2)) < 0.4
    mask[0, 1] = False
    sums = episode_sums(first, second, mask, form, episode_dims=3)
    assert sums.total.shape == sums.weight.shape == (2, 3, 4)
    for episodes in (1, 3, 4):
        some = [{k: v[:, :, :episodes] for k, v in side.items()} for side in (first, second)]
        expected = overlap(*some, mask[:, :, :episodes], form, run_dims=2)
        torch.testing.assert_close(sums.value(episodes), expected, equal_nan=True)
    assert sums.value()[0, 1].isnan()

    by_step = [
        episode_sums(
            {k: v[..., step, :] for k, v in first.items()},
            {k: v[..., step, :] for k, v in second.items()},
            mask[..., step],
            form,
            episode_dims=3,
        )
        for step in range(6)
    ]
    added = sum(by_step[1:], start=by_step[0])
    torch.testing.assert_close(added.value(), sums.value(), equal_nan=True)


def test_episode_sums_by_hand() -> None:
    sums = EpisodeSums(total=torch.tensor([[3.0, 1.0], [0.0, 5.0]]), weight=torch.tensor([[2.0, 2.0], [0.0, 1.0]]))
    assert sums.value().tolist() == [1.0, 5.0]
    first = sums.value(1)
    assert first[0] == 1.5 and first[1].isnan()
    for episodes in (0, 3):
        with pytest.raises(ValueError, match="between 1 and the 2"):
            sums.value(episodes)
    with pytest.raises(ValueError, match="one shape"):
        EpisodeSums(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="same episodes"):
        sums + EpisodeSums(torch.zeros(1), torch.zeros(1))
