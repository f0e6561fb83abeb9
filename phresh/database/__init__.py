"""The database: connecting, statements, and the one transaction of a request."""
