"""The queries that select everything that is stored about a user."""

from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Executable,
    case,
    cast,
    func,
    literal_column,
    select,
    tuple_,
)

from phresh.accounts.models import AuditLine, OneTimeToken, ReleasedUsername, Token
from phresh.cleanings.models import Cleaning
from phresh.cleanings.queries import RENDERED as CLEANING
from phresh.database.statements import Value, query, row_json
from phresh.evaluations.models import Evaluation
from phresh.evaluations.queries import RENDERED as EVALUATION
from phresh.offers.models import Offer
from phresh.offers.queries import RENDERED as OFFER
from phresh.sessions.queries import ID as SESSION_ID
from phresh.web.idempotency import IdempotencyKey

# Rows that are read at once. The longest, a cleaning or an evaluation, has 40 KB.
BATCH = 50


class Section(NamedTuple):
    """A list in the document: the rows of a table that are of a user.

    :param rendered: a row as JSON text
    :param user: the column that names the user
    :param keys: the columns that name a row, in whose order the rows are read
    """

    rendered: ColumnElement[str]
    user: Any
    keys: tuple[Any, ...]


SECTIONS = {
    "sessions": Section(
        row_json(
            *(SESSION_ID.label("id"), Token.created_at, Token.last_used_at, Token.expires_at),
            *(Token.address, Token.user_agent),
        ),
        Token.user_id,
        (Token.hash,),
    ),
    "mailed_links": Section(
        row_json(
            *(OneTimeToken.purpose, OneTimeToken.email_key.label("email")),
            *(OneTimeToken.created_at, OneTimeToken.expires_at),
        ),
        OneTimeToken.user_id,
        (OneTimeToken.hash,),
    ),
    "audit_log": Section(
        row_json(
            *(AuditLine.at, AuditLine.action, AuditLine.reason),
            # Not from where an operator has done it.
            case(
                (
                    func.coalesce(AuditLine.actor_id, AuditLine.user_id) == AuditLine.user_id,
                    AuditLine.address,
                ),
            ).label("address"),
        ),
        AuditLine.user_id,
        (AuditLine.id,),
    ),
    "cleanings": Section(CLEANING, Cleaning.owner_id, (Cleaning.id,)),
    "offers": Section(OFFER, Offer.user_id, (Offer.id,)),
    "evaluations_written": Section(EVALUATION, Evaluation.owner_id, (Evaluation.id,)),
    "evaluations_received": Section(EVALUATION, Evaluation.cleaner_id, (Evaluation.id,)),
    "former_usernames": Section(
        row_json(ReleasedUsername.username, ReleasedUsername.released_at),
        ReleasedUsername.user_id,
        (ReleasedUsername.username,),
    ),
    "idempotency_keys": Section(
        row_json(IdempotencyKey.method, IdempotencyKey.path, IdempotencyKey.created_at),
        IdempotencyKey.sender,
        (IdempotencyKey.method, IdempotencyKey.path, IdempotencyKey.key),
    ),
}


@query
def batch(section: str, *, user_id: Value, **after: Value) -> Executable:
    """Select the next rows of a section, each with its keys.

    :param after: the keys of the last row before them; none for the first rows
    """
    rendered, user, keys = SECTIONS[section]
    rows = select(rendered, *keys).where(user == cast(user_id, user.type))
    if after:
        rows = rows.where(tuple_(*keys) > tuple_(*after.values()))
    return rows.order_by(*keys).limit(literal_column(str(BATCH)))
