"""Learners: MADDPG for stacks of independent runs. Nothing here knows of deception or of self-other overlap."""

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.maddpg import MADDPG, AuxiliaryActorLoss, UpdateStatistics
from soo_marl.agents.networks import ContextCritic, StackedMLP
from soo_marl.agents.noise import OrnsteinUhlenbeckNoise
from soo_marl.agents.replay import ReplayBuffer, Transitions
from soo_marl.agents.trainer import Step, Trainer, TrainingConfig, Worlds

__all__ = [
    "MADDPG",
    "AgentNetworks",
    "AgentSpaces",
    "AuxiliaryActorLoss",
    "ContextCritic",
    "MADDPGConfig",
    "OrnsteinUhlenbeckNoise",
    "ReplayBuffer",
    "StackedMLP",
    "Step",
    "Trainer",
    "TrainingConfig",
    "Transitions",
    "UpdateStatistics",
    "Worlds",
]
