"""The queries on profiles."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Executable,
    Select,
    Text,
    case,
    cast,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from phresh.accounts.models import Profile, User
from phresh.accounts.queries import has_username
from phresh.cleanings.models import Cleaning
from phresh.database.statements import Value, query, row_json
from phresh.evaluations.models import Evaluation
from phresh.evaluations.queries import IS_PUBLIC as COUNTS
from phresh.offers.models import TAKING, Offer


def _rating(aggregate: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    rated = (Evaluation.cleaner_id == User.id, COUNTS)
    return select(aggregate).where(*rated).scalar_subquery().label(name)


PUBLIC = (
    *(User.username, Profile.full_name, Profile.bio, Profile.image),
    _rating(cast(func.avg(Evaluation.overall_rating), Double), "avg_overall_rating"),
    _rating(func.count(), "total_evaluations"),
    Profile.hidden_at.is_not(None).label("is_hidden"),
)
FULL = (*PUBLIC, User.email, Profile.phone_number)
IS_PUBLIC = Profile.hidden_at.is_(None)  # also where there is no row


def _profile(rendered: ColumnElement[str]) -> Select[Any]:
    # Outer: a profile is inserted when it is first changed.
    return select(rendered).join_from(User, Profile, Profile.user_id == User.id, isouter=True)


@query
def public_profile(*, username: Value) -> Executable:
    """Select a profile as everyone may see it."""
    return _profile(row_json(*PUBLIC)).where(has_username(username), IS_PUBLIC)


@query
def seen_profile(*, username: Value, viewer_id: Value) -> Executable:
    """Select a profile as a certain user may see it."""
    may_contact = or_(
        User.id == viewer_id, _cleans_for(User.id, viewer_id), _cleans_for(viewer_id, User.id)
    )
    shown = case((may_contact, row_json(*FULL)), else_=row_json(*PUBLIC))
    seen = or_(IS_PUBLIC, User.id == viewer_id)
    return _profile(shown).where(has_username(username), seen)


def _cleans_for(cleaner_id: Any, owner_id: Any) -> ColumnElement[bool]:
    """Return the condition that an offer of the cleaner on a cleaning of the owner was accepted."""
    job = select(Offer.id).join(Cleaning, Cleaning.id == Offer.cleaning_id)
    takes = or_(*(Offer.status == status for status in TAKING))
    return exists(job.where(Offer.user_id == cleaner_id, Cleaning.owner_id == owner_id, takes))


@query
def own_profile(*, user_id: Value) -> Executable:
    """Select a profile as its user sees it."""
    return _profile(row_json(*FULL)).where(User.id == user_id)


@query
def has_phone_number(*, user_id: Value, phone_number: Value) -> Executable:
    """Select one row if a user has that phone number, or none where it is null."""
    phone_numbers = select(Profile.phone_number).where(Profile.user_id == user_id)
    same = phone_numbers.scalar_subquery().is_not_distinct_from(cast(phone_number, Text))
    return select(User.id).where(User.id == user_id, same)


@query
def changed_profile(*, user_id: Value, **changes: Value) -> Executable:
    """Change a profile, or insert it."""
    made = insert(Profile).values(user_id=user_id, **changes)
    return made.on_conflict_do_update(index_elements=[Profile.user_id], set_=changes)


@query
def hidden_profile(*, username: Value, is_hidden: Value) -> Executable:
    """Hide a profile, or show it again; select its user."""
    hidden_at = case((is_hidden, func.now()))
    user = select(User.id, hidden_at).where(has_username(username))
    made = insert(Profile).from_select([Profile.user_id, Profile.hidden_at], user)
    hidden = made.on_conflict_do_update(
        index_elements=[Profile.user_id], set_={"hidden_at": made.excluded.hidden_at}
    )
    return hidden.returning(Profile.user_id)
