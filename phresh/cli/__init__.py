"""The commands beside those of Flask and its extensions."""
