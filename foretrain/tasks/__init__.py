"""Tasks: downstream evaluations, and what they share."""
