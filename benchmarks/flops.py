"""Floating-point operations of one MADDPG update, counted from the sizes of its networks."""

from __future__ import annotations

from soo_marl.agents import AgentSpaces


def update_flops(spaces: AgentSpaces, hidden: int, batch: int) -> int:
    """Floating-point operations of one update of all agents of one run, in its matrix products alone.

    A product of ``[B, n]`` and ``[n, m]`` counts ``2 B n m``. With networks of two hidden layers of ``H`` units and
    ``n`` inputs and ``m`` outputs, a forward pass takes ``2 B (n H + H H + H m)``, the weights' gradients take the
    same, and the gradients of the inputs of the two upper layers take ``2 B (H H + H m)``. One update takes

    * of each target actor a forward pass, once for all critics;
    * of each agent's target critic a forward pass;
    * of its critic, to fit it, a forward pass, the weights' gradients, and the upper layers' input gradients;
    * of its actor a forward pass, the weights' gradients and the upper layers' input gradients;
    * of its critic, to judge the actor, a forward pass, the upper layers' input gradients, and of the first layer's
      the columns of the agent's own action.

    This is the least that the equations need, for critics with one context: activations, sampling of the minibatch,
    clipping, Adam and the targets' soft updates are not counted, though they take time.

    Args:
        spaces: sizes of the agents' observations and actions.
        hidden: ``H``.
        batch: ``B``.
    """
    joint = sum(spaces.observation_sizes) + sum(spaces.action_sizes)
    critic, critic_upper = _forward(joint, hidden, 1), _upper(hidden, 1)
    total = 0
    for observation, action in zip(spaces.observation_sizes, spaces.action_sizes, strict=True):
        actor, actor_upper = _forward(observation, hidden, action), _upper(hidden, action)
        targets = actor + critic
        fit_critic = 2 * critic + critic_upper
        fit_actor = 2 * actor + actor_upper + critic + critic_upper + hidden * action
        total += targets + fit_critic + fit_actor
    return 2 * batch * total


def _forward(inputs: int, hidden: int, outputs: int) -> int:
    """Weights of all three layers."""
    return inputs * hidden + _upper(hidden, outputs)


def _upper(hidden: int, outputs: int) -> int:
    """Weights of the two upper layers."""
    return hidden * hidden + hidden * outputs
