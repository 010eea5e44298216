from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soo_marl.llm.model.alignment import TokenBatch, TokenMode, align, longest, repadded, token_span
from soo_marl.overlap import overlap, overlap_loss

Side = Literal["left", "right"]
MODES: tuple[TokenMode, ...] = ("full_masked", "aligned_right", "last", "mean")


def laid_out(rows: list[list[float]], width: int, side: Side, filler: float = 99.0) -> tuple[dict[str, Tensor], Tensor]:
    """Activations ``[B, width, 1]`` and mask with each row's values together at the start or the end."""
    values = torch.full((len(rows), width, 1), filler)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        place = slice(0, len(tokens)) if side == "right" else slice(width - len(tokens), width)
        values[row, place, 0] = torch.tensor(tokens)
        mask[row, place] = True
    return {"layer": values}, mask


def pairs(
    mode: TokenMode, self_side: Side, other_side: Side, skip_header: int = 0
) -> tuple[list[list[float]], list[list[float]]]:
    """The values that meet, row by row, for self prompts of 3 and 2 tokens and other prompts of 2 and 4."""
    self_activations, self_mask = laid_out([[1, 2, 3], [4, 5]], 4, self_side)
    other_activations, other_mask = laid_out([[10, 20], [30, 40, 50, 60]], 5, other_side)
    one, two, mask = align(self_activations, other_activations, self_mask, other_mask, mode, skip_header)
    return tuple(  # type: ignore[return-value]
        [side["layer"][row, mask[row], 0].tolist() for row in range(2)] for side in (one, two)
    )


@pytest.mark.parametrize("self_side", ["left", "right"])
@pytest.mark.parametrize("other_side", ["left", "right"])
@pytest.mark.parametrize(
    ("mode", "skip_header", "self_values", "other_values"),
    [
        ("full_masked", 0, [[1, 2], [4, 5]], [[10, 20], [30, 40]]),
        ("aligned_right", 0, [[2, 3], [4, 5]], [[10, 20], [50, 60]]),
        ("aligned_right", 1, [[3], [5]], [[20], [60]]),
        ("last", 0, [[3], [5]], [[20], [60]]),
        ("mean", 0, [[2], [4.5]], [[15], [45]]),
    ],
)
def test_unequal_lengths_by_hand(
    self_side: Side,
    other_side: Side,
    mode: TokenMode,
    skip_header: int,
    self_values: list[list[float]],
    other_values: list[list[float]],
) -> None:
    assert pairs(mode, self_side, other_side, skip_header) == (self_values, other_values)


def test_pairs_of_different_length_share_one_mask() -> None:
    self_activations, self_mask = laid_out([[1, 2, 3], [4, 5]], 3, "right")
    other_activations, other_mask = laid_out([[1, 2, 5], [6, 5]], 3, "left")
    one, two, mask = align(self_activations, other_activations, self_mask, other_mask, "full_masked")
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    # Squared differences 0, 0, 4 and 4, 0 over five positions.
    assert overlap(one, two, mask).item() == pytest.approx(8 / 5)
    assert overlap_loss(one, two, mask, run_dims=1).tolist() == pytest.approx([4 / 3, 2])


def test_full_compares_columns_padding_included() -> None:
    self_activations, self_mask = laid_out([[1, 2]], 3, "right", filler=7)
    other_activations, other_mask = laid_out([[1, 2, 3]], 3, "right")
    one, two, mask = align(self_activations, other_activations, self_mask, other_mask, "full")
    assert mask.tolist() == [[True, True, True]]
    assert overlap(one, two, mask).item() == pytest.approx(16 / 3)


def test_means_of_half_precision_are_taken_in_single_precision() -> None:
    layer = {"layer": torch.full((1, 3000, 1), 1.01, dtype=torch.bfloat16)}
    mask = torch.ones(1, 3000, dtype=torch.bool)
    mean, _, _ = align(layer, layer, mask, mask, "mean")
    assert mean["layer"].dtype == torch.float32
    assert mean["layer"].item() == pytest.approx(layer["layer"][0, 0, 0].item(), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    sides=st.tuples(st.sampled_from(["left", "right"]), st.sampled_from(["left", "right"])),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 1000),
)
def test_padding_changes_nothing_whatever_it_holds(
    lengths: list[tuple[int, int]], padding: tuple[int, int], sides: tuple[Side, Side], mode: TokenMode, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [[torch.randn(pair[side], generator=generator).tolist() for pair in lengths] for side in (0, 1)]
    widths = [max(len(tokens) for tokens in side) for side in rows]
    tight = [laid_out(side, width, "right") for side, width in zip(rows, widths, strict=True)]
    loose = [laid_out(rows[i], widths[i] + padding[i], sides[i], filler=float("nan")) for i in (0, 1)]
    losses = []
    for (one, one_mask), (two, two_mask) in (tight, loose):
        for layer in (*one.values(), *two.values()):
            layer.requires_grad_()
        one_side, two_side, mask = align(one, two, one_mask, two_mask, mode)
        losses.append(overlap_loss(one_side, two_side, mask))
        losses[-1].backward()
        assert one["layer"].grad is not None
        assert (one["layer"].grad[~one_mask] == 0).all()
        assert one["layer"].grad.isfinite().all()
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("mode", [*MODES, "full"])
def test_equal_prompts_meet_themselves(mode: TokenMode) -> None:
    layer, mask = laid_out([[1, 2, 3], [4, 5]], 4, "left")
    one, two, valid = align(layer, layer, mask, mask, mode)
    assert overlap(one, two, valid).item() == 0


def test_repadding_moves_tokens_and_keeps_them() -> None:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]]).bool()
    batch = TokenBatch(torch.tensor([[2, 5, 2], [6, 7, 8]]), mask)
    right = repadded(batch, 4, "right", 0)
    assert right.input_ids.tolist() == [[5, 2, 0, 0], [6, 7, 8, 0]]
    assert right.attention_mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    left = repadded(right, 3, "left", 2)
    assert left.input_ids.tolist() == [[2, 5, 2], [6, 7, 8]]
    assert (left.attention_mask == mask).all()
    assert longest(batch) == 3


def test_a_token_that_is_also_padding_stays_where_the_mask_says_so() -> None:
    start, end = token_span(torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]]).bool())
    assert start.tolist() == [0, 2] and end.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1], [0, 0]], "prompt 1 of the batch has no real token"),
        ([[1, 0, 1]], "before or after"),
        ([1, 1], r"\[prompts, tokens\]"),
    ],
)
def test_unfit_masks_are_refused(mask: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_span(torch.tensor(mask).bool())


def test_what_does_not_fit_is_refused() -> None:
    one, one_mask = laid_out([[1, 2, 3], [1, 2]], 3, "right")
    two, two_mask = laid_out([[1, 2], [1, 2]], 2, "right")
    with pytest.raises(ValueError, match="skip at most 1"):
        align(one, two, one_mask, two_mask, "aligned_right", skip_header=2)
    with pytest.raises(ValueError, match="only with the token mode aligned_right"):
        align(one, two, one_mask, two_mask, "last", skip_header=1)
    with pytest.raises(ValueError, match="must be one of"):
        align(one, two, one_mask, two_mask, "first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"not 3 and 2: pad both with repadded"):
        align(one, two, one_mask, two_mask, "full")
    with pytest.raises(ValueError, match="one prompt per pair"):
        align(one, two, one_mask, two_mask[:1], "last")
    with pytest.raises(ValueError, match="keeps the tokens apart"):
        align(one, one, one_mask, two_mask, "last")
    with pytest.raises(ValueError, match="raise the length"):
        repadded(TokenBatch(torch.ones(2, 3, dtype=torch.long), one_mask), 2, "left", 0)
