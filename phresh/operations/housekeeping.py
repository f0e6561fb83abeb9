"""What is deleted by the clock. Nothing that a client sees depends on when that is."""

from flask import current_app

from phresh.accounts import limits
from phresh.accounts.queries import (
    deleted_expired_one_time_tokens,
    deleted_expired_tokens,
    deleted_old_audit_lines,
    deleted_released_usernames,
)
from phresh.database.statements import Query
from phresh.database.transactions import fetch
from phresh.jobs.tasks import task
from phresh.web.idempotency import deleted_old_keys


def _old_lines() -> Query:
    return deleted_old_audit_lines(seconds=current_app.config["AUDIT_LOG_DAYS"] * 24 * 3600)


EXPIRED = {
    "idempotency keys": deleted_old_keys,
    "tokens": deleted_expired_tokens,
    "one-time tokens": deleted_expired_one_time_tokens,
    "lines of the audit log": _old_lines,
    "counters": limits.deleted_old_quotas,
    "usernames": deleted_released_usernames,
}


def delete_expired() -> dict[str, int]:
    """Delete what has expired, and return how much of each kind it was."""
    return {name: len(fetch(query())) for name, query in EXPIRED.items()}


@task(schedule="17 * * * *")
def remove_expired() -> None:
    """Delete what has expired, every hour."""
    delete_expired()
