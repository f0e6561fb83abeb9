"""Serving: gunicorn's worker, its hooks, and the log."""
