"""The networks of several agents in several runs: all that it takes to act, to be measured and to be saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.networks import ContextCritic, StackedMLP
from soo_marl.random_streams import RandomStreams, distinct_seeds


class AgentNetworks:
    """Actors and critics for ``R`` runs of ``A`` agents; lists hold one stack of networks per agent.

    Args:
        spaces: sizes of the agents' observations and actions.
        config: sizes of the networks; the rest of it is of no account here.
        seeds: one seed per run; initial weights and samples of discrete actions derive from it.
        device: where everything lies.
        stream: prefix of the random streams; networks of one seed with different prefixes start from different weights.

    Raises:
        ValueError: there is no seed, or one is given twice.
    """

    def __init__(
        self,
        spaces: AgentSpaces,
        config: MADDPGConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        stream: str = "maddpg",
    ) -> None:
        self.spaces, self.seeds, self.device = spaces, distinct_seeds(seeds), torch.device(device)
        self.random = RandomStreams(self.seeds, f"{stream}/gumbel", device)
        scales = spaces.observation_scales
        joint_scale = sum(scales, ()) + (1.0,) * sum(spaces.action_sizes) if scales else None

        def network(
            name: str, inputs: int, outputs: int, scale: Sequence[float] | None, bound: float | None
        ) -> StackedMLP:
            return StackedMLP(
                inputs,
                outputs,
                hidden_units=config.hidden_units,
                activation=config.activation,
                random=RandomStreams(self.seeds, f"{stream}/{name}", self.device),
                input_scale=scale,
                output_bound=bound,
            )

        # A small first output keeps tanh from saturating before anything is learnt (the paper's code: 0.003).
        bound = None if spaces.discrete else 3e-3
        self.actors = [
            network(f"actor/{i}", inputs, outputs, scales[i] if scales else None, bound).eval()
            for i, (inputs, outputs) in enumerate(zip(spaces.observation_sizes, spaces.action_sizes, strict=True))
        ]
        joint_size = sum(spaces.observation_sizes) + sum(spaces.action_sizes)
        self.critics = [
            ContextCritic(
                [network(f"critic/{i}/{c}", joint_size, 1, joint_scale, None) for c in range(config.contexts)]
            ).eval()
            for i in range(len(self.actors))
        ]

    def act(self, observations: Sequence[Tensor], noise: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Choose actions ``[R, B, action size]`` for observations ``[R, B, observation size]`` of each agent.

        Without noise the policies are greedy: the mean action, or the one-hot most probable one, and no random number
        is drawn. With noise ``[R, B, action size]`` per agent, continuous actions are perturbed by it and clipped to
        [-1, 1]; discrete ones are relaxed Gumbel-softmax samples, whatever the noise.
        """
        with torch.no_grad():
            outputs = [actor(observation) for actor, observation in zip(self.actors, observations, strict=True)]
            if self.spaces.discrete:
                return tuple(_most_probable(output) if noise is None else self.squash(output) for output in outputs)
            if noise is None:
                return tuple(map(torch.tanh, outputs))
            return tuple(
                (torch.tanh(output) + extra).clamp_(-1.0, 1.0) for output, extra in zip(outputs, noise, strict=True)
            )

    def squash(self, output: Tensor) -> Tensor:
        """Turn an actor's output into an action that carries gradients: tanh, or a Gumbel-softmax sample."""
        if not self.spaces.discrete:
            return torch.tanh(output)
        return torch.softmax(output + self.random.gumbel(*output.shape[1:]), dim=-1)

    def copy(self) -> AgentNetworks:
        """The same networks once more, without gradients, to serve as targets; both draw from one random stream."""
        twin = copy.copy(self)
        twin.actors = [copy.deepcopy(actor).requires_grad_(False) for actor in self.actors]
        twin.critics = [copy.deepcopy(critic).requires_grad_(False) for critic in self.critics]
        return twin

    def state(self) -> dict[str, Tensor]:
        """Return copies of all networks, as named tensors with a leading axis of runs."""
        return {
            f"{name}/{key}": tensor.clone()
            for name, network in self._networks().items()
            for key, tensor in network.state_dict().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned; other entries of ``state`` are ignored.

        Raises:
            RuntimeError: the state is of another configuration.
        """
        for name, network in self._networks().items():
            network.load_state_dict(below(state, f"{name}/"))

    def _networks(self) -> dict[str, nn.Module]:
        actors, critics = enumerate(self.actors), enumerate(self.critics)
        return {f"actor/{i}": actor for i, actor in actors} | {f"critic/{i}": critic for i, critic in critics}


def mean_action(output: Tensor, discrete: bool) -> Tensor:
    """What an actor's output stands for without sampling: a force, or the probabilities of discrete moves."""
    return torch.softmax(output, dim=-1) if discrete else torch.tanh(output)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose names start with ``prefix``, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}


def _most_probable(output: Tensor) -> Tensor:
    one_hot: Tensor = nn.functional.one_hot(output.argmax(dim=-1), output.shape[-1])
    return one_hot.to(output.dtype)
