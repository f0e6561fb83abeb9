"""The queries of operators."""

from typing import Any

from sqlalchemy import ColumnElement, Executable, func, literal_column, or_, select, update

from phresh.accounts.models import AuditLine, Token, User
from phresh.accounts.queries import SHOWN, has_username
from phresh.cleanings.models import Cleaning
from phresh.database.statements import Query, Value, query, row_json
from phresh.evaluations.models import Evaluation
from phresh.offers.models import Offer
from phresh.sessions.queries import SHOWN as SESSION
from phresh.web.pages import Page

COUNT_MAX = 10_000  # beyond which rows are not counted
ACCOUNT = (*SHOWN, User.is_active)
LINE = (
    *(AuditLine.id, AuditLine.at, AuditLine.action, AuditLine.actor_id, AuditLine.user_id),
    *(AuditLine.target, AuditLine.reason, AuditLine.address, AuditLine.request_id),
)


def _count(name: str, user: Any) -> ColumnElement[Any]:
    """Return the SQL that counts the rows of a user, up to ``COUNT_MAX``."""
    rows = select(user).where(user == User.id).limit(literal_column(str(COUNT_MAX)))
    counted = rows.correlate(User).subquery()
    return select(func.count()).select_from(counted).scalar_subquery().label(name)


COUNTS = row_json(
    _count("cleanings", Cleaning.owner_id),
    _count("offers", Offer.user_id),
    _count("evaluations_written", Evaluation.owner_id),
    _count("evaluations_received", Evaluation.cleaner_id),
)


def account_page(page: Page, q: str = "") -> Query:
    """Select a page of the accounts; with ``q``, of those whose username or email has it."""
    pattern = {"pattern": f"%{_escaped(q.lower())}%"} if q else {}
    return _account_page(page, **pattern, **page.values)


def _escaped(text: str) -> str:
    """Return a text as LIKE finds it (https://www.postgresql.org/docs/current/functions-matching.html)."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


@query
def _account_page(page: Page, **values: Value) -> Executable:
    found = select(row_json(*ACCOUNT))
    if "pattern" in values:
        pattern = values["pattern"]
        names = (func.lower(User.username), User.email_key)
        found = found.where(or_(*(name.like(pattern) for name in names)))
    return page.apply(found, User)


@query
def account(*, username: Value) -> Executable:
    """Select an account, its id, and how much it has."""
    return select(row_json(*ACCOUNT), User.id, COUNTS).where(has_username(username))


@query
def sessions(*, user_id: Value) -> Executable:
    """Select the sessions of an account."""
    of_account = (Token.user_id == user_id, Token.expires_at > func.now())
    found = select(row_json(*SESSION)).where(*of_account)
    return found.order_by(Token.created_at.desc(), Token.hash)


@query
def made_operator(*, username: Value, is_superuser: Value) -> Executable:
    """Make an account an operator, or no longer one."""
    made = update(User).where(has_username(username)).values(is_superuser=is_superuser)
    return made.returning(User.id)


def audit_page(page: Page, username: str | None = None) -> Query:
    """Select a page of the audit log; with a username, of the lines about that account."""
    values = {} if username is None else {"username": username}
    return _audit_page(page, **values, **page.values)


@query
def _audit_page(page: Page, **values: Value) -> Executable:
    lines = select(row_json(*LINE))
    if "username" in values:
        user_id = select(User.id).where(has_username(values["username"])).scalar_subquery()
        lines = lines.where(AuditLine.user_id == user_id)
    return page.apply(lines, AuditLine)
