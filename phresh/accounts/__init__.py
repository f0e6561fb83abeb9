"""Users: accounts, and the tokens that stand for them."""
