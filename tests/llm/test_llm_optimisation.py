from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from soo_marl.engines import Interrupted
from soo_marl.llm.methods import optimisation
from soo_marl.llm.methods.optimisation import Schedule, optimise, seeded
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.tensor_files import write_tensors

STEPS = 6


class Net(nn.Module):
    """A frozen layer, two trained ones with dropout between them, and a weight that no gradient ever reaches."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.frozen, self.hidden, self.last = nn.Linear(3, 4), nn.Linear(4, 8), nn.Linear(8, 1)
        self.frozen.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.dropout(torch.tanh(self.hidden(self.frozen(inputs)))))
        return outputs


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)


def loss_of(model: nn.Module) -> Callable[[int], list[Tensor]]:
    def loss(step: int) -> list[Tensor]:
        inputs, targets = data(step)
        return [(model(inputs) - targets).square().mean()]

    return loss


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def after(steps: int) -> Callable[[], bool]:
    """True once it was asked so often."""
    asked = iter(range(1, 1_000))
    return lambda: next(asked) >= steps


def test_the_schedule_rises_stays_and_falls_by_straight_lines() -> None:
    schedule = Schedule(2.0, steps=10, warm_up=4, decay=5)
    assert [schedule(step) for step in range(10)] == pytest.approx([0.5, 1, 1.5, 2, 2, 2, 1.6, 1.2, 0.8, 0.4])
    assert [Schedule(3.0, steps=2)(step) for step in range(2)] == [3.0, 3.0]


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_learning_rate_is_never_zero_nor_above_the_highest(steps: int, warm_up: int, decay: int) -> None:
    schedule = Schedule(0.1, steps, warm_up, decay)
    assert all(0 < schedule(step) <= 0.1 for step in range(steps))


@pytest.mark.parametrize("largest_gradient", [None, 0.3])
def test_the_weights_are_those_of_a_plain_loop(largest_gradient: float | None) -> None:
    model, plain = Net().eval(), Net().eval()
    schedule = Schedule(0.05, STEPS, warm_up=2, decay=2)
    losses = optimise(model, loss_of(model), schedule, 0, weight_decay=0.1, largest_gradient=largest_gradient)

    trained = [weight for weight in plain.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1.0, weight_decay=0.1)
    expected = []
    for step, rate in enumerate([0.025, 0.05, 0.05, 0.05, 0.05, 0.025]):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        inputs, targets = data(step)
        value = (plain(inputs) - targets).square().mean()
        value.backward()
        if largest_gradient is not None:
            norm = torch.cat([weight.grad.flatten() for weight in trained if weight.grad is not None]).norm()
            assert norm > largest_gradient
            torch.nn.utils.clip_grad_norm_(trained, largest_gradient)
        optimiser.step()
        expected.append(value.item())
    assert losses == expected
    assert_same_bits(weights(model), weights(plain))
    assert_same_bits(weights(model.frozen), weights(Net().frozen))
    assert all(weight.grad is None for weight in model.parameters())


def test_a_step_is_that_of_adamw_by_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    # Loss c w with c = 3, then c = 1: the gradients are 3 and 1.
    optimise(model, lambda step: [(3.0 - 2 * step) * model.weight.sum()], Schedule(0.1, 2), 0, weight_decay=0.5)
    first = 2.0 * (1 - 0.1 * 0.5) - 0.1 * 3 / (3 + 1e-8)
    mean, square = (0.9 * 0.1 * 3 + 0.1 * 1) / (1 - 0.9**2), (0.999 * 0.001 * 9 + 0.001 * 1) / (1 - 0.999**2)
    second = first * (1 - 0.1 * 0.5) - 0.1 * mean / (square**0.5 + 1e-8)
    assert model.weight.item() == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("stopped_after", range(1, STEPS))
def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, stopped_after: int) -> None:
    whole = Net().train()
    losses = optimise(whole, loss_of(whole), Schedule(0.05, STEPS, 2, 2), 7)

    checkpoint = tmp_path / "folder" / "c.safetensors"
    settings = {"checkpoint": checkpoint, "identity": "net 7"}
    stopped = Net().train()
    with pytest.raises(Interrupted):
        optimise(stopped, loss_of(stopped), Schedule(0.05, STEPS, 2, 2), 7, stop=after(stopped_after), **settings)  # type: ignore[arg-type]
    torch.rand(5)  # whatever happens to the global generator meanwhile
    resumed = Net().train()
    done: list[int] = []

    def count(steps: int, _: float) -> bool:
        done.append(steps)
        return False

    again = optimise(resumed, loss_of(resumed), Schedule(0.05, STEPS, 2, 2), 7, after_step=count, **settings)  # type: ignore[arg-type]
    assert again == losses
    assert done == list(range(stopped_after + 1, STEPS + 1))
    assert_same_bits(weights(resumed), weights(whole))


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "_CHECKPOINT_SECONDS", -1.0)
    whole, killed, resumed = (Net().train() for _ in range(3))
    losses = optimise(whole, loss_of(whole), Schedule(0.05, STEPS), 7)

    def die(steps: int, _: float) -> bool:
        if steps == 4:
            raise KeyboardInterrupt
        return False

    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        optimise(killed, loss_of(killed), Schedule(0.05, STEPS), 7, after_step=die, checkpoint=checkpoint)
    first: list[int] = []

    def note(steps: int, _: float) -> bool:
        first.append(steps)
        return False

    assert (
        optimise(resumed, loss_of(resumed), Schedule(0.05, STEPS), 7, after_step=note, checkpoint=checkpoint) == losses
    )
    assert first[0] == 4
    assert_same_bits(weights(resumed), weights(whole))


def test_a_training_that_was_ended_early_ends_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "_CHECKPOINT_SECONDS", -1.0)
    checkpoint = tmp_path / "c.safetensors"
    ended, again = Net().train(), Net().train()
    losses = optimise(
        ended,
        loss_of(ended),
        Schedule(0.05, STEPS),
        7,
        after_step=lambda steps, _: steps == 3,
        checkpoint=checkpoint,
        stop=after(3),
    )
    assert len(losses) == 3
    # Killed before anything was made of the weights: the checkpoint is still there.
    repeated = optimise(
        again,
        loss_of(again),
        Schedule(0.05, STEPS),
        7,
        after_step=lambda steps, _: steps == 3,
        checkpoint=checkpoint,
    )
    assert repeated == losses
    assert_same_bits(weights(again), weights(ended))


def test_to_stop_after_the_last_step_is_to_have_finished() -> None:
    model = Net()
    assert len(optimise(model, loss_of(model), Schedule(0.05, 2), 0, stop=after(2))) == 2


def test_dropout_follows_from_seed_and_step_and_leaves_the_global_generator_alone() -> None:
    def losses(seed: int) -> list[float]:
        model = Net().train()
        return optimise(model, lambda _: loss_of(model)(0), Schedule(1e-12, 3), seed)

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = losses(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert losses(0) == first
    assert len(set(first)) == 3
    assert losses(1)[0] != first[0]
    draws = []
    for parts in ((0, 1), (1, 0), (0, 1), (0,), (-3,)):
        with seeded(*parts):
            draws.append(torch.rand(1).item())
    assert draws[0] == draws[2]
    assert len(set(draws)) == 4


def test_parts_give_the_weights_of_one_batch_and_come_one_at_a_time() -> None:
    whole, parted = Net().eval(), Net().eval()
    expected = optimise(whole, loss_of(whole), Schedule(0.05, STEPS), 0)

    def parts(step: int) -> Iterator[Tensor]:
        inputs, targets = data(step)
        for start in (0, 5):
            # The part before has given its gradient and no longer needs memory.
            assert (parted.last.weight.grad is None) == (start == 0)
            rows = slice(start, 5 if start == 0 else 8)
            yield (parted(inputs[rows]) - targets[rows]).square().sum() / 8

    assert optimise(parted, parts, Schedule(0.05, STEPS), 0) == pytest.approx(expected, rel=1e-5)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(parted.get_parameter(name).detach(), weight, msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_it_spoils_the_weights(value: float) -> None:
    model = Net()
    before: list[dict[str, Tensor]] = []

    def loss(step: int) -> list[Tensor]:
        before.append(weights(model))
        return [model.last.weight.square().sum() * (value if step == 1 else 1.0)]

    with pytest.raises(ValueError, match=rf"loss is {value} at step 2: lower the learning rate"):
        optimise(model, loss, Schedule(0.05, STEPS), 0)
    assert_same_bits(weights(model), before[1])


def test_a_model_with_nothing_to_train_is_refused() -> None:
    model = Net().requires_grad_(False)
    with pytest.raises(ValueError, match="no weight of the model requires gradients"):
        optimise(model, loss_of(model), Schedule(0.05, STEPS), 0)


def test_the_checkpoint_of_something_else_is_refused_and_left(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    model = Net()
    with pytest.raises(Interrupted):
        optimise(model, loss_of(model), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="this", stop=after(1))
    content = checkpoint.read_bytes()
    fresh, other = Net(), nn.Linear(3, 1)
    before = weights(fresh)
    with pytest.raises(RunDirectoryError, match="checkpoint of something else; delete it"):
        optimise(fresh, loss_of(fresh), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="that")
    assert_same_bits(weights(fresh), before)
    with pytest.raises(RunDirectoryError, match="checkpoint of something else"):
        optimise(other, loss_of(other), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="this")
    assert checkpoint.read_bytes() == content

    fresh.hidden = nn.Linear(4, 9)
    with pytest.raises(RunDirectoryError, match="checkpoint of something else"):
        optimise(fresh, loss_of(fresh), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="this")
    no_losses = {f"weight/{name}": weight for name, weight in Net().named_parameters() if weight.requires_grad}
    write_tensors(checkpoint, no_losses, {"identity": "this"})
    with pytest.raises(RunDirectoryError, match="checkpoint of something else"):
        optimise(model, loss_of(model), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="this")
    checkpoint.write_bytes(content[:-4])
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
        optimise(model, loss_of(model), Schedule(0.05, STEPS), 0, checkpoint=checkpoint, identity="this")
