"""Worlds: the Physical Deception game and its observations. Nothing here knows of learning."""

import pettingzoo  # noqa: F401  # first, since it silences the greeting that pygame prints when imported

from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.envs.configuration import PRESETS, PhysicalDeceptionConfig, preset
from soo_marl.envs.observations import BLUE, RED
from soo_marl.envs.physical_deception import PhysicalDeception
from soo_marl.envs.state import PhysicalDeceptionState

__all__ = [
    "BLUE",
    "PRESETS",
    "RED",
    "BatchedPhysicalDeception",
    "BatchedSimpleAdversary",
    "PhysicalDeception",
    "PhysicalDeceptionConfig",
    "PhysicalDeceptionState",
    "SimpleAdversaryConfig",
    "preset",
]
