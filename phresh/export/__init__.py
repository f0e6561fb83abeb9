"""Everything that is stored about an account, in one document."""
