"""The second factor of the current user: switched on and off."""
