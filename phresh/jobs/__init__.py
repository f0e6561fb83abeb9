"""Background jobs: work that requests leave to a worker."""
