"""Behaviour: what agents of Physical Deception do, measured on recorded trajectories. Contains no learning code."""

from soo_marl.deception.behaviour import (
    BehaviourRates,
    Competence,
    CompetenceGate,
    CompetencePair,
    behaviour,
    competence,
)
from soo_marl.deception.difference import (
    BehaviouralDifference,
    RelativeDifference,
    behavioural_difference,
    relative_difference,
)
from soo_marl.deception.profile import DeceptionProfile, deception_profile
from soo_marl.deception.rubric import RubricSteps, rubric_rate, rubric_steps
from soo_marl.deception.trajectories import Trajectories
from soo_marl.deception.verdict import (
    Conduct,
    Judgement,
    NothingToJudgeByError,
    References,
    Verdict,
    VerdictRule,
    judge,
    seeing_pays,
)

__all__ = [
    "BehaviourRates",
    "BehaviouralDifference",
    "Competence",
    "CompetenceGate",
    "CompetencePair",
    "Conduct",
    "DeceptionProfile",
    "Judgement",
    "NothingToJudgeByError",
    "References",
    "RelativeDifference",
    "RubricSteps",
    "Trajectories",
    "Verdict",
    "VerdictRule",
    "behaviour",
    "behavioural_difference",
    "competence",
    "deception_profile",
    "judge",
    "relative_difference",
    "rubric_rate",
    "rubric_steps",
    "seeing_pays",
]
