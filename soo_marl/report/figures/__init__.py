"""Figures of agents and studies of agents, drawn from records."""
