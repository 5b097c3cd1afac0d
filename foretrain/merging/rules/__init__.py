"""Rules: how the task vectors of several models become one."""
