"""Who asks: passwords, tokens, and the views that want to know."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, NoReturn

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from flask import Flask, current_app, g, request
from flask_smorest import abort

from phresh import limits
from phresh.api import SECURITY, Blueprint
from phresh.db import fetch, fetch_apart, paused_deadline
from phresh.statements import Query
from phresh.users import queries


def init_app(app: Flask) -> None:
    """Have the app hash passwords as its settings say."""
    app.extensions["passwords"] = Passwords(
        PasswordHasher(
            app.config["ARGON2_TIME_COST"],
            app.config["ARGON2_MEMORY_COST"],
            app.config["ARGON2_PARALLELISM"],
        ),
        at_once=app.config["HASHES_AT_ONCE"],
        seconds=app.config["HASH_TIMEOUT"],
    )


# Passwords


class Passwords:
    """Hashes passwords with Argon2id (RFC 9106), a few at once, since each takes time and memory.

    :param at_once: how many
    :param seconds: how long to wait for a turn
    """

    def __init__(self, hasher: PasswordHasher, *, at_once: int, seconds: float) -> None:
        self._hasher = hasher
        self._turns = threading.BoundedSemaphore(at_once)
        self._seconds = seconds
        self._apply: Callable[..., Any] = lambda function, arguments: function(*arguments)

    def defer(self, apply: Callable[..., Any]) -> None:
        """Leave it to threads beside the event loop to hash.

        :param apply: calls a function with a tuple of arguments there, and gives what it gives
        """
        self._apply = apply

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, in which :meth:`hash` and :meth:`is_of` may be called; 503 without."""
        with paused_deadline():
            has_turn = self._turns.acquire(timeout=self._seconds)
        if not has_turn:
            abort(503, message="Too many passwords to check. Try again soon.")
        try:
            yield
        finally:
            self._turns.release()

    def hash(self, password: str) -> str:
        """Give the hash of a password, with its parameters and salt."""
        with paused_deadline():
            made: str = self._apply(self._hasher.hash, (password,))
        return made

    def is_of(self, password: str, password_hash: str | None) -> bool:
        """Whether that is the hash of a password; of None it takes as long to say no."""
        if password_hash is None:
            self.hash(password)
            return False
        with paused_deadline():
            is_so: bool = self._apply(self._is_of, (password, password_hash))
        return is_so

    def _is_of(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerifyMismatchError, InvalidHashError):  # the latter of who can't log in
            return False

    def is_outdated(self, password_hash: str) -> bool:
        """Whether a hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(password_hash)


def passwords() -> Passwords:
    """Give what hashes the passwords of this app."""
    found: Passwords = current_app.extensions["passwords"]
    return found


class Credentials(NamedTuple):
    """What decides who may log in."""

    user_id: int
    email: str
    username: str
    password_hash: str
    is_active: bool


def confirmed(query: Query, password: str, name: str) -> Credentials | None:
    """Give the credentials that a query finds, if the password is theirs and they are active.

    Without credentials it takes as long. It answers 429 after too many wrong passwords. What is
    done then has to begin with :func:`still_confirmed`.

    :param name: what counts them where there are no credentials
    """
    with passwords().turn():
        found = [Credentials(*row) for row in fetch_apart(query)]
        tries = limits.failed_logins(f"user {found[0].user_id}" if found else _digest(name).hex())
        limits.refuse_exceeded(tries)
        password_hash = found[0].password_hash if found else None
        is_right = passwords().is_of(password, password_hash)
        if is_right and found[0].is_active:
            return found[0]
        limits.count(tries)
        return None


def still_confirmed(found: Credentials) -> bool:
    """Whether confirmed credentials are those of the account, until the transaction ends."""
    held = {"user_id": found.user_id, "password_hash": found.password_hash}
    return bool(fetch(queries.locked_credentials(**held)))


# Tokens


class Account(NamedTuple):
    """Whose token a request came with."""

    user_id: int
    username: str
    token_hash: bytes


def new_token(user_id: int) -> dict[str, Any]:
    """Make a token that stands for a user, and give it as RFC 6749 5.1 has it; its hash is kept."""
    token, seconds = secrets.token_urlsafe(32), current_app.config["TOKEN_LIFETIME"]
    fetch(queries.new_token(user_id=user_id, token_hash=_digest(token), seconds=seconds))
    return {"access_token": token, "token_type": "bearer", "expires_in": seconds}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def login_required(view: Callable[..., Any]) -> Any:
    """Have a view answer 401 without a token that is good."""
    return _with_account(view, SECURITY, lambda: True)


def login_optional(view: Callable[..., Any]) -> Any:
    """Have a view answer 401 to a token that is not good."""
    return _with_account(view, [*SECURITY, {}], lambda: False)


def login_to_post(view: Callable[..., Any]) -> Any:
    """Have a view answer 401 to a token that is not good, and to none if guests may not post."""
    return _with_account(view, [*SECURITY, {}], lambda: not current_app.config["GUEST_POSTING"])


def _with_account(
    view: Callable[..., Any], security: list[Any], is_required: Callable[[], bool]
) -> Any:
    @wraps(view)
    def with_account(*args: Any, **kwargs: Any) -> Any:
        g.account = _account()
        if g.account is None and is_required():
            _refuse("A token is needed: log in.", "Bearer")
        return view(*args, **kwargs)

    return Blueprint.doc(security=security)(with_account)


def current_account() -> Account:
    """Give the account that asks, in a view under ``login_required``."""
    account: Account = g.account
    return account


def current_account_or_guest() -> Account | None:
    """Give the account that asks, or None, in a view for which it is optional."""
    account: Account | None = g.account
    return account


def _account() -> Account | None:
    """Give the account of the token that was sent (RFC 6750 2.1), None without."""
    if "HTTP_AUTHORIZATION" not in request.environ:
        return None
    sent = request.authorization
    if sent is None or sent.type != "bearer" or not sent.token:
        refuse_token()
    token_hash = _digest(sent.token)
    # Apart from what the view does, which may take its time before its transaction begins.
    rows = fetch_apart(queries.user_of_token(token_hash=token_hash))
    if not rows:
        refuse_token()
    [(user_id, username)] = rows
    return Account(user_id, username, token_hash)


def refuse_token() -> NoReturn:
    """Answer 401 to a token that stands for nobody."""
    _refuse("The token is not valid, or no longer: log in.", 'Bearer error="invalid_token"')


def _refuse(why: str, challenge: str) -> NoReturn:
    """Answer 401 with what is asked for (RFC 6750 3)."""
    abort(401, message=why, headers={"WWW-Authenticate": challenge})
