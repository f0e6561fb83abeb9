"""Profiles: what users publish about themselves, and how they are rated."""
