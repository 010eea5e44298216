"""The game under the name by which PettingZoo's own tools look for a version of an environment."""

from soo_marl.envs.physical_deception import env, parallel_env, raw_env

__all__ = ["env", "parallel_env", "raw_env"]
