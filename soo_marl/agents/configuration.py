"""Settings of MADDPG, and what it must know of the agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from soo_marl.agents.networks import Activation


class MADDPGConfig(BaseModel):
    """Settings of the algorithm. Immutable and validated.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hidden_units: int = Field(64, ge=1, description="Units of each of the two hidden layers (Lowe et al.: 64).")
    activation: Activation = Field(
        "relu", description="Activation of the hidden layers (Lowe et al. relu; the paper's code leaky_relu)."
    )
    normalisation: Literal["none"] = Field("none", description="Of inputs: only none, which files on disk name.")
    actor_learning_rate: float = Field(
        0.003,
        gt=0,
        description="Adam's step for actors. Too high: outputs saturate; too low: policies lag behind the critics.",
    )
    critic_learning_rate: float = Field(
        0.003,
        gt=0,
        description="Adam's step for critics. Too high: values oscillate; too low: actors follow stale values.",
    )
    gamma: float = Field(0.95, ge=0, le=1, description="Discount per step.")
    tau: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share by which target networks approach the trained ones in each update. "
        "Values propagate at a rate of about tau (1 - gamma) per update: too low is slow, too high unstable.",
    )
    gradient_clip: float = Field(0.5, gt=0, description="Largest norm of a run's gradient (both references: 0.5).")
    clip_scope: Literal["network", "tensor"] = Field(
        "network",
        description="Clip the gradient of a whole network (the paper's code) or of each tensor alone (openai/maddpg).",
    )
    pre_squash_penalty: float = Field(
        0.01,
        ge=0,
        description="Weight of the mean squared actor output before tanh or softmax in the actor loss "
        "(openai/maddpg: 0.001 on logits). Too low: actors saturate and stop learning; too high: actions stay timid.",
    )
    others_actions: Literal["replay"] = Field(
        "replay", description="The other agents' actions in the actor update: only those of the batch (Lowe et al.)."
    )
    contexts: int = Field(
        1, ge=1, description="Number of contexts the environment reports, each with a value network of its own."
    )
    context_weights: tuple[float, ...] | None = Field(
        None, description="Weight of each context's transitions in the actor loss; 1 where none are given."
    )
    reward_scale: float = Field(
        1.0, gt=0, description="Fixed factor on rewards; brings values to the order of 10, which the critics fit best."
    )
    standardise_rewards: Literal[False] = Field(False, description="Only false, which files on disk name.")

    @model_validator(mode="after")
    def _one_weight_per_context(self) -> Self:
        weights = self.context_weights
        if weights is not None and (len(weights) != self.contexts or min(weights) < 0):
            raise ValueError(f"context_weights must be {self.contexts} numbers of at least 0, one for each context")
        return self

    def weigh(self, values: Tensor, context: Tensor) -> Tensor:
        """Values ``[R, B]`` times the weights of their contexts ``[R, B]`` in the actor loss."""
        if self.context_weights is None:
            return values
        return values * torch.tensor(self.context_weights, dtype=torch.float32, device=context.device)[context]


@dataclass(frozen=True)
class AgentSpaces:
    """What the algorithm must know of the agents; index ``i`` is agent ``i`` everywhere.

    Raises:
        ValueError: the fields disagree on the number of agents or of observation features, or ``discrete`` is not one
            word for all agents.
    """

    observation_sizes: tuple[int, ...]
    """Features of each agent's observation."""
    action_sizes: tuple[int, ...]
    """Numbers in each agent's action."""
    discrete: bool = False
    """Actions are points of a simplex (Gumbel-softmax) instead of forces in [-1, 1]."""
    observation_scales: tuple[tuple[float, ...], ...] | None = None
    """Fixed factors per agent and observation feature that bring the inputs of all networks to order 1."""

    def __post_init__(self) -> None:
        if len(self.observation_sizes) != len(self.action_sizes):
            raise ValueError(
                f"there are {len(self.observation_sizes)} observation sizes and {len(self.action_sizes)} action sizes: "
                "give one of each per agent"
            )
        if not isinstance(self.discrete, bool):
            raise ValueError(
                "discrete says of all agents alike whether actions are discrete, True or False, not "
                f"{self.discrete!r}: agents of both kinds cannot learn together"
            )
        scales = self.observation_scales
        if scales is not None and tuple(len(scale) for scale in scales) != tuple(self.observation_sizes):
            raise ValueError("observation_scales must have one factor for each feature of each agent's observation")
