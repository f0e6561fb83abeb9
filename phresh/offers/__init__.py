"""Offers: who would clean for whom, and who does."""
