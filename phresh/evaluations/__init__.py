"""Evaluations: how owners rate cleaners."""
