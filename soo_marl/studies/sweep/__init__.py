"""Many configurations of one recipe, and which of their settings matter."""
