"""Rules that stop losing arms before their budget is spent."""
