"""Worlds: the Physical Deception game and its observations. Nothing here knows of learning."""

import pettingzoo  # first, since it silences the greeting that pygame prints when imported

from soo_marl.envs import physical_deception_v0
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.envs.configuration import PRESETS, PhysicalDeceptionConfig, preset
from soo_marl.envs.observations import BLUE, RED
from soo_marl.envs.physical_deception import PhysicalDeception
from soo_marl.envs.state import PhysicalDeceptionState

if hasattr(pettingzoo, "register"):  # from 1.27 on
    pettingzoo.register("parallel", "soo_marl/physical_deception-v0", "soo_marl.envs.physical_deception:parallel_env")
    pettingzoo.register("aec", "soo_marl/physical_deception-v0", "soo_marl.envs.physical_deception:env")

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
    "physical_deception_v0",
    "preset",
]
