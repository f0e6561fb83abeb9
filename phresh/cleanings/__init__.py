"""Cleanings: the jobs that people post."""
