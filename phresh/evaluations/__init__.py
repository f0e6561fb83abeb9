"""Evaluations: how an owner rates who cleaned."""
