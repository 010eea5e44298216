"""Behavioural deception profiles: the rubric swept over its thresholds."""
