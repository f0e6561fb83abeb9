"""Deletion of an account, which touches every feature."""
