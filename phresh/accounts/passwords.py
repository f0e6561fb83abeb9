"""Hashing passwords."""

from collections.abc import Callable
from typing import Any

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from flask import Flask, current_app
from gevent import monkey

from phresh.database.deadlines import paused_deadline
from phresh.web.turns import Turns

TOO_MANY = "Too many passwords to check. Try again soon."


def init_app(app: Flask) -> None:
    """Set up the hashing of passwords with the parameters of the app's settings."""
    app.extensions["passwords"] = Passwords(
        PasswordHasher(
            app.config["ARGON2_TIME_COST"],
            app.config["ARGON2_MEMORY_COST"],
            app.config["ARGON2_PARALLELISM"],
        ),
        Turns(app.config["HASHES_AT_ONCE"], app.config["HASH_TIMEOUT"], TOO_MANY),
    )


class Passwords:
    """Hashes passwords with Argon2id (RFC 9106), few at once: each takes time and memory.

    :param turns: what calls :meth:`hash` and :meth:`verify` is to have a turn
    """

    def __init__(self, hasher: PasswordHasher, turns: Turns) -> None:
        self._hasher = hasher
        self.turns = turns
        self.turn = turns.turn

    def hash(self, password: str) -> str:
        """Return the hash of a password, with its parameters and salt."""
        made: str = _apply(self._hasher.hash, password)
        return made

    def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether that is the hash of a password; for None it takes as long to say no."""
        if password_hash is None:
            self.hash(password)
            return False
        is_right: bool = _apply(self._verify, password, password_hash)
        return is_right

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerifyMismatchError, InvalidHashError):  # the latter: nobody can log in with it
            return False

    def is_outdated(self, password_hash: str) -> bool:
        """Return whether a hash was made with other parameters than the current ones."""
        return self._hasher.check_needs_rehash(password_hash)


def _apply(function: Callable[..., Any], *arguments: str) -> Any:
    """Call a function that takes its time, and exclude it from the time for the database.

    Under gevent a thread beside the event loop calls it, so that other requests go on.
    """
    with paused_deadline():
        if monkey.is_module_patched("threading"):
            return gevent.get_hub().threadpool.apply(function, arguments)
        return function(*arguments)


def passwords() -> Passwords:
    """Return what hashes the passwords of the current app."""
    found: Passwords = current_app.extensions["passwords"]
    return found
