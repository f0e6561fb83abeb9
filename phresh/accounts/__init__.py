"""Accounts: users, their passwords and tokens, and limits on guessing."""
