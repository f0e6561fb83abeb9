"""Idempotency keys: a POST that is sent again gives the answer that it gave, and does no more.

After the IETF's draft-ietf-httpapi-idempotency-key-header: the key's row is written in the
transaction of what the request writes, so that there are both or neither. A refused request
leaves no row and can be sent again.
"""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

import marshmallow as ma
from flask import current_app, request
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
    cast,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, mapped_column

from phresh.auth import current_account_or_guest
from phresh.db import Base, fetch
from phresh.statements import Value, query

GUEST = ""  # all who have no account are one sender
KEEP = timedelta(hours=24)


class IdempotencyKey(Base):
    """A key that was used, with the request it came with and the answer that was given."""

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
    # Null only inside the transaction that makes the answer.
    answer: Mapped[str | None] = mapped_column(Text)
    headers: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class KeyField(ma.fields.String):
    """A key, bare or as a string of RFC 8941 (3.3.3)."""

    PATTERN = r'([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")'

    default_error_messages = {"key": "Must be 1 to 255 visible ASCII characters."}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        key: str = super()._deserialize(value, *args, **kwargs)
        if not re.fullmatch(self.PATTERN, key):
            raise self.make_error("key")
        return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


class IdempotencyKeySchema(ma.Schema):
    """The header."""

    key = KeyField(
        data_key="Idempotency-Key",
        metadata={
            "pattern": f"^{KeyField.PATTERN}$",
            "description": "Sent again with this key, the request gives the first answer",
        },
    )


def idempotent(view: Callable[..., Any]) -> Callable[..., Any]:
    """Have a POST view answer the same key with the same answer.

    It stands under ``login_optional`` or ``login_required``: each account has keys of its own.
    Its last argument comes from ``@blp.arguments(IdempotencyKeySchema, location="headers")``.
    It answers 422 to a key that came with another body, and 409 to one whose first request still
    runs. Not for answers that hold secrets: they are stored.
    """

    @wraps(view)
    def answer(*args: Any, **kwargs: Any) -> Any:
        key = args[-1].get("key")
        if key is None:
            return view(*args[:-1], **kwargs)
        path = request.path.rstrip("/")
        account = current_account_or_guest()
        sender = GUEST if account is None else str(account.user_id)
        name = {"sender": sender, "method": request.method, "path": path, "key": key}
        body = json.dumps(args[:-1], sort_keys=True, default=str)
        body_hash = hashlib.sha256(body.encode()).hexdigest()
        if not _claim(name, body_hash):
            return _first_answer(name, body_hash)
        result = view(*args[:-1], **kwargs)
        given, headers = result if isinstance(result, tuple) else (result, {})
        fetch(_answered_key(**name, answer=given, headers=json.dumps(headers)))
        return result

    return answer


def _claim(name: dict[str, str], body_hash: str) -> bool:
    """Insert the key; wait a moment for a transaction that has it and has not ended."""
    fetch(_lock_timeout(milliseconds=f"{current_app.config['LOCK_TIMEOUT'] * 1000:.0f}"))
    try:
        return bool(fetch(_claimed_key(**name, body_hash=body_hash)))
    except LockNotAvailable:
        abort(409, message="The first request with this Idempotency-Key still runs.")


def _first_answer(name: dict[str, str], body_hash: str) -> Any:
    rows = fetch(_used_key(**name))
    if not rows:  # removed this moment
        abort(409, message="This Idempotency-Key was just forgotten. Send the request again.")
    first_hash, answer, headers = rows[0]
    if first_hash != body_hash:
        abort(
            422,
            messages={"headers": {"Idempotency-Key": ["Was used before, with another body."]}},
        )
    return answer, json.loads(headers)


@query
def _lock_timeout(*, milliseconds: Value) -> Executable:
    """How long to wait for a lock in this transaction."""
    return select(func.set_config("lock_timeout", milliseconds, True))


@query
def _claimed_key(**values: Value) -> Executable:
    """Insert a key; no row where there is one, once the transaction that has it ended."""
    claim = insert(IdempotencyKey).values(values).on_conflict_do_nothing()
    return claim.returning(IdempotencyKey.key)


@query
def _used_key(**name: Value) -> Executable:
    """What is known of a key."""
    row = IdempotencyKey
    return select(row.body_hash, row.answer, cast(row.headers, Text)).where(*_named(name))


@query
def _answered_key(*, answer: Value, headers: Value, **name: Value) -> Executable:
    """Store the answer that was given."""
    stored = {"answer": answer, "headers": cast(headers, JSONB)}
    return update(IdempotencyKey).where(*_named(name)).values(stored)


def _named(name: dict[str, Value]) -> list[ColumnElement[bool]]:
    return [getattr(IdempotencyKey, column) == value for column, value in name.items()]


@query
def deleted_old_keys() -> Executable:
    """Delete the keys that need not be known any longer."""
    old = IdempotencyKey.created_at < func.now() - text(f"interval '{KEEP.total_seconds()} s'")
    return delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)
