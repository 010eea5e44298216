"""Checkpoints of a shard that were cut, flipped, or made by somebody who means harm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from soo_marl.engines import Interrupted
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.tensor_files import read_tensors, write_tensors
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_shard
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.recipes import BaselineConfig

Whole = tuple[BaselineConfig, bytes]

ROWS = "trainer/replay/rows"
COUNTERS = "trainer/replay/counters"


def train(config: BaselineConfig, path: Path, stop: bool = False) -> None:
    open_study(path, config)
    train_shard(config, path, config.seeds, "cpu", report=lambda done: None, stop=lambda: stop)


@pytest.fixture(scope="module")
def whole(trained: tuple[BaselineConfig, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A configuration and its checkpoint after the first log interval."""
    config = trained[0].model_copy(update={"seeds": (0, 1)})
    study = tmp_path_factory.mktemp("whole") / "study"
    with pytest.raises(Interrupted):
        train(config, study, stop=True)
    return config, ShardCheckpoint.of(config, study, config.seeds).path.read_bytes()


@pytest.fixture
def checkpoint(whole: Whole, study: Path) -> ShardCheckpoint:
    """A checkpoint in a study of a test's own."""
    config, content = whole
    open_study(study, config)
    checkpoint = ShardCheckpoint.of(config, study, config.seeds)
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(content)
    return checkpoint


def refused(config: BaselineConfig, checkpoint: ShardCheckpoint) -> str:
    """The sentence with which the command that would go on refuses the checkpoint and leaves it as it is."""
    before = checkpoint.path.read_bytes()
    with pytest.raises(RunDirectoryError) as raised:
        train(config, checkpoint.path.parents[1])
    assert checkpoint.path.read_bytes() == before
    message = str(raised.value)
    assert str(checkpoint.path) in message and message.endswith("delete it to train the agents that it belongs to anew")
    assert message.isprintable()
    return message


def rewrite(
    checkpoint: ShardCheckpoint,
    change: Callable[[dict[str, Tensor]], object] = lambda state: None,
    **metadata: str,
) -> None:
    """Forge a checkpoint: the digest fits."""
    state, found = read_tensors(checkpoint.path, finite=False)
    state = {name: tensor.clone() for name, tensor in state.items()}
    change(state)
    write_tensors(checkpoint.path, state, found | metadata)


def test_a_checkpoint_that_was_rewritten_as_it_was_is_taken(checkpoint: ShardCheckpoint, whole: Whole) -> None:
    rewrite(checkpoint)
    with pytest.raises(Interrupted):
        train(whole[0], checkpoint.path.parents[1], stop=True)


@pytest.mark.parametrize("part", [x / 20 for x in range(20)])
def test_a_flipped_bit_anywhere_is_found(part: float, checkpoint: ShardCheckpoint, whole: Whole) -> None:
    content = bytearray(checkpoint.path.read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    numbers = size + int(part * (len(content) - size))
    content[numbers] ^= 0x10
    checkpoint.path.write_bytes(content)
    assert "is damaged: its content is not what was written" in refused(whole[0], checkpoint)


@pytest.mark.parametrize(
    "metadata",
    [
        {"phase": "-1"},
        {"phase": "5"},
        {"phase": "9" * 5000},
        {"phase": "one"},
        {"phase": ""},
        {"updates": "-1"},
        {"updates": "7"},
        {"updates": "4"},
        {"updates": "1e3"},
        {"owner": "../../etc/passwd"},
        {"phase": "1"},
    ],
)
def test_metadata_that_does_not_fit(metadata: dict[str, str], checkpoint: ShardCheckpoint, whole: Whole) -> None:
    rewrite(checkpoint, **metadata)
    if metadata == {"phase": "1"}:
        # Of a phase whose turn has not come: as if there were none.
        with pytest.raises(Interrupted):
            train(whole[0], checkpoint.path.parents[1], stop=True)
    else:
        refused(whole[0], checkpoint)


def put(name: str, value: Any) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.__setitem__(name, value if isinstance(value, Tensor) else torch.tensor(value))


CHANGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "a network is missing": lambda state: state.pop("trainer/maddpg/actor/0/hidden_1.linear.weight"),
    "a moment is missing": lambda state: state.pop("trainer/maddpg/actor_adam/0/first_moment"),
    "the buffer is missing": lambda state: state.pop(ROWS),
    "the number of updates is missing": lambda state: state.pop("trainer/updates"),
    "a tensor too many": put("trainer/maddpg/actor/2/hidden_1.linear.weight", [0.0]),
    "a path": put("../../etc/passwd", [0.0]),
    "a path among averages": put("trainer/averages/../../x", torch.zeros(2, 2).double()),
    "a path among curves": put("curves/../../x", torch.zeros(1, 2)),
    "other networks": lambda state: put(
        "trainer/maddpg/actor/0/hidden_1.linear.weight",
        state["trainer/maddpg/actor/0/hidden_1.linear.weight"][:, :, :-1].contiguous(),
    )(state),
    "one run for all": lambda state: put(ROWS, state[ROWS][:1].contiguous())(state),
    "integer weights": lambda state: put(
        "trainer/maddpg/actor/0/hidden_1.linear.weight",
        state["trainer/maddpg/actor/0/hidden_1.linear.weight"].long(),
    )(state),
    "more transitions than the buffer holds": lambda state: put(
        ROWS, torch.zeros(state[ROWS].shape[0], 401, state[ROWS].shape[2])
    )(state),
    "position beyond the buffer": lambda state: state[COUNTERS].__setitem__(0, 400),
    "negative position": lambda state: state[COUNTERS].__setitem__(0, -1),
    "position that skips": lambda state: state[COUNTERS].__setitem__(0, 3),
    "another capacity": lambda state: state[COUNTERS].__setitem__(1, 500),
    "a counter at the end of 64 bits": lambda state: state[COUNTERS].__setitem__(2, (1 << 63) - 1),
    "a negative counter": put("overlap_counter", -5),
    "negative steps of Adam": put("trainer/maddpg/actor_adam/0/steps", -5),
    "a goal that is no landmark": lambda state: state["trainer/worlds/goal"].fill_(7),
    "a run that was stopped in no stage": lambda state: state["stops"].fill_(9),
    "more log entries than updates": lambda state: put("curves/updates", torch.zeros(3, 2))(state),
    "a curve of another length": lambda state: put("curves/noise", torch.zeros(2, 2))(state),
}


@pytest.mark.parametrize("how", CHANGES)
def test_tensors_that_do_not_fit_are_refused(how: str, checkpoint: ShardCheckpoint, whole: Whole) -> None:
    rewrite(checkpoint, CHANGES[how])
    refused(whole[0], checkpoint)
    assert sorted(path.name for path in checkpoint.path.parents[2].iterdir()) == ["study"], (
        "nothing was written outside"
    )
