"""A watch on learning: runs whose networks break down are stopped alone, in their last good state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import below
from soo_marl.agents.maddpg import MADDPG

_TOLERANCE = 10.0
"""How many times what discounted rewards can add up to a mean value may reach before it counts as exploding."""


class DivergenceWatch:
    """Looks at a learner now and then, and stops runs that no longer learn anything.

    A run is stopped when a parameter is not finite, or the mean value of its policy exceeds ten times what the largest
    reward seen, earned in every step for ever, would be worth: ``reward_scale max|r| / (1 - gamma)``, plus one. Its
    networks are put back to where they were at the last look and stay there, and the other runs go on.

    Args:
        maddpg: the learner.
        stopped: runs ``[R]`` that were stopped before, as the attribute of the same name of an earlier watch.
    """

    def __init__(self, maddpg: MADDPG, stopped: Tensor | None = None) -> None:
        self.maddpg = maddpg
        self.stopped = torch.full((len(maddpg.seeds),), -1, device="cpu") if stopped is None else stopped.clone()
        """Int64 ``[R]``: updates done at the last good state of a stopped run, -1 for one that goes on."""
        self.good, self.good_updates = maddpg.networks_state(), 0
        """The networks at the last look, and how many updates were done."""
        maddpg.freeze(self.stopped >= 0)

    def look(self, updates: int, values: Tensor) -> None:
        """Stop the runs that broke down since the last look.

        Args:
            updates: how many are done.
            values: mean value of the policies ``[R, learning agents]`` since the last look.
        """
        optimisers = (*self.maddpg.actor_optimisers, *self.maddpg.critic_optimisers)
        # A sum is finite only where all its terms are.
        sums = torch.stack([optimiser.parameters.sum(dim=1) for optimiser in optimisers])
        sound = sums.isfinite().all(dim=0) & (values.abs() <= self._largest_value()[:, None]).all(dim=1)
        broken = ~sound.cpu() & (self.stopped < 0)
        self.stopped[broken] = self.good_updates
        stopped = self.stopped >= 0
        if bool(stopped.any()):
            # At every look, since target networks move in frozen runs, too.
            networks = self.maddpg.networks_state()
            for name, tensor in networks.items():
                tensor[stopped] = self.good[name][stopped]
            self.maddpg.load_networks(networks)
            self.maddpg.freeze(stopped)
        self.good, self.good_updates = self.maddpg.networks_state(), updates

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors."""
        good = {f"good/{name}": tensor for name, tensor in self.good.items()}
        return {**good, "stopped": self.stopped.clone(), "good_updates": torch.tensor(self.good_updates)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another learner.
        """
        good = below(state, "good/")
        self.good = {name: torch.empty_like(tensor).copy_(good[name]) for name, tensor in self.good.items()}
        self.stopped = torch.empty_like(self.stopped).copy_(state["stopped"])
        self.good_updates = int(state["good_updates"])
        self.maddpg.freeze(self.stopped >= 0)

    def _largest_value(self) -> Tensor:
        """The largest value ``[R]`` that is believed."""
        config = self.maddpg.config
        rewards = self.maddpg.largest_reward.amax(dim=1)
        horizon = 1.0 / (1.0 - config.gamma) if config.gamma < 1 else torch.inf
        return _TOLERANCE * (1.0 + config.reward_scale * rewards * horizon)
