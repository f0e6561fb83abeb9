"""The logins of the current user: where they are from, and how they are ended."""
