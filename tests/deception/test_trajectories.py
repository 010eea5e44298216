from dataclasses import replace

import pytest
import torch

from soo_marl.deception import Trajectories

FIELDS = tuple(Trajectories.__dataclass_fields__)


def random_trajectories(leading: tuple[int, ...] = (2, 3), steps: int = 4) -> Trajectories:
    generator = torch.Generator().manual_seed(0)
    states = (*leading, steps + 1)

    def flags(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < 0.5

    return Trajectories(
        blue_position=torch.randn(*states, 2, generator=generator),
        red_position=torch.randn(*states, 2, generator=generator),
        landmarks=torch.randn(*leading, 2, 2, generator=generator),
        goal=torch.randint(0, 2, leading, generator=generator),
        trapped=flags(*states),
        alone=flags(*leading),
        red_in_sight=flags(*states),
        blue_in_sight=flags(*states),
    )


def test_goal_and_fake_positions() -> None:
    trajectories = random_trajectories()
    assert trajectories.leading_shape == (2, 3) and trajectories.steps == 4
    for run in range(2):
        for episode in range(3):
            goal = int(trajectories.goal[run, episode])
            landmarks = trajectories.landmarks[run, episode]
            assert torch.equal(trajectories.goal_position[run, episode], landmarks[goal])
            assert torch.equal(trajectories.fake_position[run, episode], landmarks[1 - goal])


@pytest.mark.parametrize(
    "index", [0, (1, 2), slice(1), (slice(None), slice(2)), (..., 0), (slice(None), [0, 2]), torch.tensor([1, 1])]
)
def test_selection_acts_on_the_leading_dimensions_of_every_field(index: object) -> None:
    trajectories = random_trajectories()
    chosen = trajectories[index]
    assert chosen.leading_shape == tuple(torch.zeros(2, 3)[index].shape)
    numbers = torch.arange(6).reshape(2, 3)[index]
    for name in FIELDS:
        assert torch.equal(getattr(chosen, name), getattr(trajectories, name).flatten(0, 1)[numbers]), name


def test_selection_by_a_mask() -> None:
    trajectories = random_trajectories()
    alone = trajectories[trajectories.alone]
    assert alone.leading_shape == (int(trajectories.alone.sum()),) and alone.alone.all()
    with pytest.raises(IndexError):
        trajectories[0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blue_position": torch.zeros(2, 3, 5)}, "blue_position must be"),
        ({"blue_position": torch.zeros(2, 3, 1, 2)}, "at least one step"),
        ({"red_position": torch.zeros(2, 3, 4, 2)}, r"red_position must have the shape \(2, 3, 5, 2\)"),
        ({"landmarks": torch.zeros(2, 2, 2)}, "landmarks must have the shape"),
        ({"goal": torch.zeros(2, 3)}, "goal must be int64"),
        ({"goal": torch.full((2, 3), 2)}, "only 0 and 1"),
        ({"trapped": torch.zeros(2, 3, 4).bool()}, "trapped must have the shape"),
        ({"alone": torch.zeros(2, 3)}, "alone must be of type bool"),
        ({"red_position": torch.zeros(2, 3, 5, 2).long()}, "floating-point"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_trajectories(), **changes)
