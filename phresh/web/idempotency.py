"""Idempotency keys: a POST that is repeated returns its first response and creates nothing.

Every POST that responds 201 takes them, unless its response holds secrets
(phresh/web/blueprint.py); a view does nothing for it. After the IETF's
draft-ietf-httpapi-idempotency-key-header: the key's row is written in the transaction of what the
request writes, so that there are both or neither. A rejected request leaves no row and can be
repeated.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import marshmallow as ma
from flask import current_app, g, request
from flask_smorest import abort
from psycopg2.errors import LockNotAvailable
from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    DateTime,
    Executable,
    Index,
    PrimaryKeyConstraint,
    Text,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.wrappers import Response as BaseResponse

from phresh.database.base import Base
from phresh.database.statements import Value, query
from phresh.database.transactions import fetch
from phresh.web.addresses import client_network
from phresh.web.app import Response
from phresh.web.fields import BoundedString

OF_BODY = ("Content-Type", "Content-Length")
KEEP = timedelta(hours=24)


class IdempotencyKey(Base):
    """A key that was used, with its request and the response."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("sender", "method", "path", "key"),
        CheckConstraint("key ~ '^[!-~]{1,255}$'", name="key"),
        Index(None, "created_at"),
    )

    sender: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    body_hash: Mapped[str] = mapped_column(Text)
    # Null only inside the transaction that makes the response.
    answer: Mapped[str | None] = mapped_column(Text)
    headers: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class KeyField(BoundedString):
    """A key, bare or as a string of RFC 8941 (3.3.3)."""

    PATTERN = r'([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")'
    MAX_LENGTH = 2 * 255 + 2

    error = "Must be 1 to 255 visible ASCII characters."

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=self.MAX_LENGTH, error=self.error, **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        key = super()._deserialize(value, attr, data, **kwargs)
        if not re.fullmatch(self.PATTERN, key):
            raise ma.ValidationError(self.error)
        return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


KEY_FIELD = KeyField()


def idempotent(view: Callable[[], BaseResponse], sent: Iterable[Any], success: int) -> BaseResponse:
    """Return the first response to a POST with the request's key; call its view only once.

    Respond 422 to a key that is malformed or came with another body, and 409 to one whose first
    request is still running. Keys belong to the current user; those of guests to their network.

    :param sent: the arguments of the view
    :param success: the status of the view's response, which is stored: it must hold no secrets
    """
    try:
        key = KEY_FIELD.deserialize(request.headers["Idempotency-Key"])
    except ma.ValidationError as error:
        abort(422, messages={"headers": {"Idempotency-Key": error.messages}})
    account = g.get("account")  # set by the decorators of phresh/accounts/tokens.py
    sender = f"guest {client_network()}" if account is None else str(account.user_id)
    path = request.path.rstrip("/")
    name = {"sender": sender, "method": request.method, "path": path, "key": key}
    body = json.dumps(list(sent), sort_keys=True, default=_text)
    body_hash = hashlib.sha256(body.encode()).hexdigest()
    if not _claim(name, body_hash):
        return _first_response(name, body_hash, success)
    response = view()
    if response.status_code != success or response.mimetype != "application/json":
        raise TypeError(
            f"{request.endpoint} had an Idempotency-Key, so its response must be JSON with the "
            f"status of @blp.response: {success}."
        )
    headers = {k: v for k, v in response.headers.items() if k not in OF_BODY}
    fetch(_answered_key(**name, answer=response.get_data(as_text=True), headers=headers))
    return response


def _text(value: Any) -> str:
    """Return the text of a value in a body, the same for equal values.

    :raises TypeError: for a type whose text may be another one for the same value
    """
    if isinstance(value, Decimal | date | time | timedelta | UUID | Enum):
        return str(value)
    raise TypeError(f"A body with a {type(value).__name__} can't have an Idempotency-Key.")


def _claim(name: dict[str, str], body_hash: str) -> bool:
    """Insert the key and return whether it is new.

    It waits a moment for a transaction that has inserted the same key and has not ended.
    """
    fetch(_lock_timeout(milliseconds=f"{current_app.config['LOCK_TIMEOUT'] * 1000:.0f}"))
    try:
        return bool(fetch(_claimed_key(**name, body_hash=body_hash)))
    except LockNotAvailable:
        abort(409, message="The first request with this Idempotency-Key is still running.")


def _first_response(name: dict[str, str], body_hash: str, status: int) -> Response:
    rows = fetch(_used_key(**name))
    if not rows:  # deleted between the two statements
        abort(409, message="This Idempotency-Key has just expired. Send the request again.")
    first_hash, text, headers = rows[0]
    if first_hash != body_hash:
        reason = "This key was already used with a different body."
        abort(422, messages={"headers": {"Idempotency-Key": [reason]}})
    return Response(text, status, {**headers, "Content-Type": "application/json"})


@query
def _lock_timeout(*, milliseconds: Value) -> Executable:
    """Set how long to wait for a lock in this transaction."""
    return select(func.set_config("lock_timeout", milliseconds, True))


@query
def _claimed_key(**values: Value) -> Executable:
    """Insert a key; no row if there is one, after waiting for the transaction that inserts it."""
    claim = insert(IdempotencyKey).values(values).on_conflict_do_nothing()
    return claim.returning(IdempotencyKey.key)


@query
def _used_key(**name: Value) -> Executable:
    """Select what is stored of a key."""
    row = IdempotencyKey
    return select(row.body_hash, row.answer, row.headers).where(*_named(name))


@query
def _answered_key(*, answer: Value, headers: Value, **name: Value) -> Executable:
    """Store the response."""
    stored = update(IdempotencyKey).where(*_named(name))
    return stored.values(answer=answer, headers=headers)


def _named(name: dict[str, Value]) -> list[ColumnElement[bool]]:
    return [getattr(IdempotencyKey, column) == value for column, value in name.items()]


@query
def deleted_old_keys() -> Executable:
    """Delete expired keys."""
    old = IdempotencyKey.created_at < func.now() - text(f"interval '{KEEP.total_seconds()} s'")
    return delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)
