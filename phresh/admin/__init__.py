"""What operators do: with accounts, with what is posted, and the audit log."""
