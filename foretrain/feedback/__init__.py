"""Feedback: small downstream sets that may shape a run but never train the model on their labels."""
