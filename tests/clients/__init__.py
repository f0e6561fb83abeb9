"""Clients that others have written or generated: they work with a running server."""
