"""Forecasts: what the rest of a run, another schedule or another size will come to, judged from curves so far."""
