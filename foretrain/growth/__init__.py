"""Growth: one file per rule that makes the weights of a larger model from those of a smaller one."""
