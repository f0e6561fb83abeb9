"""Users that tests act as."""

from dataclasses import dataclass, field

from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient


@dataclass
class Someone:
    """A user, and a client that sends their token."""

    id: int
    username: str
    email: str
    token: str
    app: Flask
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.make_client()

    def make_client(self) -> FlaskClient:
        """Make another client, as for another thread."""
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        return client


PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
