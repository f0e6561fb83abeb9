"""HTTP: what every resource shares, from the parsed request to the error response."""
