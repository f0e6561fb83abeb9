"""The audit log: what was done to an account, or as an operator.

A line is written in the transaction of what it is about: either both are there or neither. One of a
failure stays, although the request is rejected.
"""

from typing import Any

from flask import g, has_request_context, request

from phresh.accounts import queries
from phresh.database.transactions import fetch, fetch_autocommit


def record(action: str, **about: Any) -> None:
    """Write a line in the transaction of the view.

    :param action: what was done, like ``password_changed``
    :param about: ``user_id``, ``target`` and ``reason`` of :class:`AuditLine`
    """
    fetch(queries.new_audit_line(action=action, **about, **_origin()))


def record_failure(action: str, **about: Any) -> None:
    """Write a line that stays when the request is rejected."""
    fetch_autocommit(queries.new_audit_line(action=action, **about, **_origin()))


def _origin() -> dict[str, Any]:
    """Return who acts, from where."""
    if not has_request_context():
        return {}
    account = g.get("account")
    return {
        "actor_id": account and account.user_id,
        "address": request.remote_addr,
        "request_id": g.request_id,
    }
