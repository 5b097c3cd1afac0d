"""foretrain: pre-training and continual pre-training, steered by feedback and compared at a matched budget."""

__version__ = "0.1.0"
