"""Hashing passwords."""

from collections.abc import Callable
from typing import Any

import gevent
from argon2 import PasswordHasher, extract_parameters
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
        # Passes, memory and lanes of the slowest hash that was seen: every attempt takes as long.
        self._slowest = (hasher.time_cost, hasher.memory_cost, hasher.parallelism)

    def hash(self, password: str) -> str:
        """Return the hash of a password, with its parameters and salt."""
        made: str = _apply(self._hasher.hash, password)
        return made

    def verify(self, password: str, password_hash: str | None) -> bool:
        """Return whether that is the hash of a password.

        It takes as long for None, for what is no hash, and for a hash with other parameters than
        the current ones: what is missing in work is done in vain. Hashes that take more work than
        the current parameters are known once one was seen.
        """
        is_right: bool = _apply(self._verify, password, password_hash or "")
        return is_right

    def _verify(self, password: str, password_hash: str) -> bool:
        is_right = False
        try:
            costs = _costs(password_hash)
            is_right = self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            pass
        except InvalidHashError:  # nobody can log in with it
            costs = (1, 0, 1)
        if _work(costs) > _work(self._slowest):
            self._slowest = costs
        passes, _, lanes = self._slowest
        memory = round((_work(self._slowest) - _work(costs)) * lanes / passes)
        if memory > 0:
            PasswordHasher(passes, max(memory, 8 * lanes), lanes).hash(password)
        return is_right

    def is_outdated(self, password_hash: str) -> bool:
        """Return whether a hash was made with other parameters than the current ones."""
        return self._hasher.check_needs_rehash(password_hash)


def _costs(password_hash: str) -> tuple[int, int, int]:
    """Return passes, memory in KiB and lanes of a hash.

    :raises InvalidHashError: when it is none
    """
    found = extract_parameters(password_hash)
    return found.time_cost, found.memory_cost, found.parallelism


def _work(costs: tuple[int, int, int]) -> float:
    """Return about how long a hash takes, in no certain unit."""
    passes, memory, lanes = costs
    return passes * memory / lanes


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
