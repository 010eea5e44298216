"""The count of floating-point operations against numbers worked out by hand."""

from benchmarks.flops import update_flops
from benchmarks.updates import SPACES
from soo_marl.agents.maddpg import AgentSpaces


def test_our_game_at_hidden_64() -> None:
    assert (SPACES.observation_sizes, SPACES.action_sizes) == ((6, 10), (2, 2))
    # Joint input 20. Critic: 20*64 + 64*64 + 64*1 = 5,440 weights, 4,160 above the first layer.
    # Actors: 6*64 + 64*64 + 64*2 = 4,608 and 10*64 + 64*64 + 64*2 = 4,864 weights, 4,224 above the first layer.
    # Per agent: target actor, actor forward and actor weights 3 x actor; actor inputs 4,224;
    # target critic, critic forward, critic weights, critic forward for the actor 4 x 5,440; inputs twice 4,160;
    # columns of the own action 64*2 = 128.
    red = 3 * 4_608 + 4_224 + 4 * 5_440 + 2 * 4_160 + 128
    blue = 3 * 4_864 + 4_224 + 4 * 5_440 + 2 * 4_160 + 128
    assert (red, blue) == (48_256, 49_024)
    assert update_flops(SPACES, hidden=64, batch=1_024) == 2 * 1_024 * (48_256 + 49_024) == 199_229_440


def test_one_agent_with_one_unit() -> None:
    # Actor 1 -> 1 -> 1 -> 1: 3 weights, 2 above the first layer; critic 2 -> 1 -> 1 -> 1: 4 weights, 2 above.
    spaces = AgentSpaces((1,), (1,))
    assert update_flops(spaces, hidden=1, batch=1) == 2 * (3 * 3 + 2 + 4 * 4 + 2 * 2 + 1)


def test_in_proportion_to_the_batch() -> None:
    assert update_flops(SPACES, 64, 512) == 2 * update_flops(SPACES, 64, 256)
