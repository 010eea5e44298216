import pytest
import torch
from torch import Tensor, nn

from soo_marl.overlap import LossForm, Sides, overlap, overlap_loss, record_activations

FORMS: tuple[LossForm, ...] = ("raw", "normalised")


def leaves(seed: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*shape, units, generator=generator, dtype=torch.float64).requires_grad_()
        for name, units in (("first", 4), ("second", 2))
    }


def gradients(loss: Tensor, activations: dict[str, Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(activations.values()), retain_graph=True))


@pytest.mark.parametrize("form", FORMS)
def test_value_is_the_metric(form: LossForm) -> None:
    first, second = leaves(0, (3, 5)), leaves(1, (3, 5))
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)) < 0.6
    torch.testing.assert_close(
        overlap_loss(first, second, mask, form=form, run_dims=1), overlap(first, second, mask, form, run_dims=1)
    )


def test_gradient_by_hand() -> None:
    self_side = {"layer": torch.tensor([[1.0, 2.0]], requires_grad=True)}
    other_side = {"layer": torch.tensor([[0.0, 4.0]], requires_grad=True)}
    loss = overlap_loss(self_side, other_side)
    loss.backward()
    assert loss.item() == 2.5
    assert self_side["layer"].grad is not None and other_side["layer"].grad is not None
    assert self_side["layer"].grad.tolist() == [[1.0, -2.0]]
    assert other_side["layer"].grad.tolist() == [[-1.0, 2.0]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("sides", "self_moves", "other_moves"),
    [("both", True, True), ("other_to_self", False, True), ("self_to_other", True, False)],
)
def test_only_the_named_sides_receive_a_gradient(
    form: LossForm, sides: Sides, self_moves: bool, other_moves: bool
) -> None:
    first, second = leaves(0, (3,)), leaves(1, (3,))
    overlap_loss(first, second, sides=sides, form=form).backward()
    assert all((layer.grad is not None) == self_moves for layer in first.values())
    assert all((layer.grad is not None) == other_moves for layer in second.values())


@pytest.mark.parametrize("form", FORMS)
def test_stack_gives_every_run_the_gradient_it_has_alone(form: LossForm) -> None:
    first, second = leaves(0, (3, 5)), leaves(1, (3, 5))
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    stacked = gradients(overlap_loss(first, second, mask, form=form, run_dims=1).sum(), first)
    for run in range(3):
        self_side, other_side = ({k: v[run] for k, v in side.items()} for side in (first, second))
        alone = gradients(overlap_loss(self_side, other_side, mask[run], form=form), self_side)
        for of_stack, of_member in zip(stacked, alone, strict=True):
            torch.testing.assert_close(of_stack[run], of_member)


@pytest.mark.parametrize("form", FORMS)
def test_masked_positions_have_no_influence_even_as_nan(form: LossForm) -> None:
    mask = torch.tensor([[True, True, False]])
    first, second = leaves(0, (1, 3)), leaves(1, (1, 3))
    loss = overlap_loss(first, second, mask, form=form)
    clean = gradients(loss, first)
    with torch.no_grad():
        for layer in second.values():
            layer[0, 2] = torch.nan
    spoiled_loss = overlap_loss(first, second, mask, form=form)
    torch.testing.assert_close(spoiled_loss, loss)
    for before, after in zip(clean, gradients(spoiled_loss, first), strict=True):
        torch.testing.assert_close(after, before)
        assert (after[0, 2] == 0).all() and (after[0, :2] != 0).all()
    assert all((gradient[0, 2] == 0).all() for gradient in gradients(spoiled_loss, second))


@pytest.mark.parametrize("form", FORMS)
def test_no_valid_position_gives_zero_loss_and_zero_gradient(form: LossForm) -> None:
    first, second = leaves(0, (2, 3)), leaves(1, (2, 3))
    loss = overlap_loss(first, second, torch.zeros(2, 3).bool(), form=form, run_dims=1)
    assert loss.tolist() == [0, 0]
    assert all((gradient == 0).all() for gradient in gradients(loss.sum(), first) + gradients(loss.sum(), second))


def test_normalised_loss_cannot_be_lowered_by_shrinking() -> None:
    first, second = leaves(0, (3,)), leaves(1, (3,))

    def slope(form: LossForm) -> Tensor:
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        scaled = [{k: v * scale for k, v in side.items()} for side in (first, second)]
        return torch.autograd.grad(overlap_loss(*scaled, form=form), scale)[0]

    assert slope("raw") > 0.1
    assert slope("normalised").abs() < 1e-12


def test_training_a_recorded_module_brings_self_and_other_together() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    self_inputs = torch.randn(32, 4)
    other_inputs = self_inputs + torch.tensor([0.0, 0.0, 1.0, -1.0])
    values = []
    for _ in range(60):
        with record_activations(module, ["1", "3"]) as record:
            module(self_inputs)
            self_activations = record.take()
            module(other_inputs)
            loss = overlap_loss(self_activations, record.take())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0] / 10


@pytest.mark.parametrize(("field", "value"), [("sides", "neither"), ("form", "log")])
def test_unknown_options_are_refused(field: str, value: str) -> None:
    activations = {"layer": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match=field):
        overlap_loss(activations, activations, **{field: value})  # type: ignore[arg-type]
