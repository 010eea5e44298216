"""Behaviour: what agents of Physical Deception do, measured on recorded trajectories. Contains no learning code."""

from soo_marl.deception.behaviour import (
    BehaviourRates,
    Competence,
    CompetenceGate,
    CompetencePair,
    behaviour,
    competence,
)
from soo_marl.deception.rubric import RubricSteps, rubric_rate, rubric_steps
from soo_marl.deception.trajectories import Trajectories

__all__ = [
    "BehaviourRates",
    "Competence",
    "CompetenceGate",
    "CompetencePair",
    "RubricSteps",
    "Trajectories",
    "behaviour",
    "competence",
    "rubric_rate",
    "rubric_steps",
]
