"""Hashing passwords."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from flask import Flask, current_app
from flask_smorest import abort
from gevent import monkey

from phresh.database.deadlines import paused_deadline


def init_app(app: Flask) -> None:
    """Set up the hashing of passwords with the parameters of the app's settings."""
    app.extensions["passwords"] = Passwords(
        PasswordHasher(
            app.config["ARGON2_TIME_COST"],
            app.config["ARGON2_MEMORY_COST"],
            app.config["ARGON2_PARALLELISM"],
        ),
        at_once=app.config["HASHES_AT_ONCE"],
        seconds=app.config["HASH_TIMEOUT"],
    )


class Passwords:
    """Hashes passwords with Argon2id (RFC 9106), few at once: each takes time and memory.

    :param at_once: how many at once
    :param seconds: how long to wait for a turn
    """

    def __init__(self, hasher: PasswordHasher, *, at_once: int, seconds: float) -> None:
        self._hasher = hasher
        self._turns = threading.BoundedSemaphore(at_once)
        self._seconds = seconds

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, in which :meth:`hash` and :meth:`verify` may be called.

        Respond 503 when there is none in time.
        """
        with paused_deadline():
            has_turn = self._turns.acquire(timeout=self._seconds)
        if not has_turn:
            abort(503, message="Too many passwords to check. Try again soon.")
        try:
            yield
        finally:
            self._turns.release()

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
