"""What phresh/config.py needs to validate settings."""
