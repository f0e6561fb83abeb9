"""Profiles: what users say of themselves, and how they were rated."""
