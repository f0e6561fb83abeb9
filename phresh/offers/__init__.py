"""Offers to clean, and accepting them."""
