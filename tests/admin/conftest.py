"""An operator, and what they did."""

import pytest


@pytest.fixture
def olga(make_user, sql):
    """An operator with a second factor."""
    olga = make_user("olga", is_superuser=True)
    sql(
        "INSERT INTO two_factors (user_id, secret, confirmed_at) VALUES (:id, 'x', now())",
        id=olga.id,
    )
    return olga


@pytest.fixture
def actions(sql):
    """The lines of the audit log so far: what, who, whose account, why."""
    columns = "action, actor_id, user_id, reason"
    return lambda: [tuple(line) for line in sql(f"SELECT {columns} FROM audit_log ORDER BY id")]
