"""What operators do, by the API or by a command. Each writes a line of the audit log."""

from phresh.accounts import audit, mails, second_factor
from phresh.accounts.mails import RECOVERY_MINUTES
from phresh.accounts.models import RECOVERY
from phresh.accounts.queries import deleted_tokens, disabled_user, id_of_user, key_of_user
from phresh.admin.queries import made_operator
from phresh.database.statements import Query
from phresh.database.transactions import fetch


def user_id_of(username: str) -> int | None:
    """Return the id of the account that has a username; None if there is none."""
    found = fetch(id_of_user(username=username))
    return found[0][0] if found else None


def set_active(username: str, *, is_active: bool, reason: str | None = None) -> bool:
    """Enable an account, or disable it and end its logins; return whether there is one."""
    found = fetch(disabled_user(username=username, is_active=is_active))
    for (user_id,) in found:
        fetch(deleted_tokens(user_id=user_id))
        action = "account_enabled" if is_active else "account_disabled"
        audit.record(action, user_id=user_id, reason=reason)
    return bool(found)


def set_operator(username: str, *, is_operator: bool) -> bool:
    """Make an account an operator, or no longer one; return whether there is one."""
    found = fetch(made_operator(username=username, is_superuser=is_operator))
    for (user_id,) in found:
        audit.record("operator_made" if is_operator else "operator_removed", user_id=user_id)
    return bool(found)


def set_hidden(
    query: Query, kind: str, target: str, *, is_hidden: bool, reason: str | None = None
) -> bool:
    """Hide something from others than its owner, or show it again; return whether it is there.

    :param query: hides or shows it, and selects the id of the user that it is of
    :param kind: what it is, in the audit log
    :param target: which one
    """
    found = fetch(query)
    for (user_id,) in found:
        action = f"{kind}_{'hidden' if is_hidden else 'shown'}"
        audit.record(action, user_id=user_id, target=target, reason=reason)
    return bool(found)


def end_sessions(user_id: int) -> None:
    """End all logins of an account."""
    fetch(deleted_tokens(user_id=user_id))
    audit.record("logins_ended", user_id=user_id)


def remove_second_factor(user_id: int) -> bool:
    """Remove the second factor of an account, and return whether it had one."""
    had_one = second_factor.remove(user_id)
    if had_one:
        audit.record("two_factor_removed", user_id=user_id)
        mails.tell_user(user_id, "two_factor_disabled")
    return had_one


def send_recovery(user_id: int) -> None:
    """Leave the mail that recovers an account to the worker."""
    for (email_key,) in fetch(key_of_user(user_id=user_id)):
        mails.defer(mails.send_recovery, email_key=email_key)
        audit.record("recovery_sent", user_id=user_id)


def recovery_link(user_id: int) -> str:
    """Return a link that recovers an account, to be handed over."""
    [(email_key,)] = fetch(key_of_user(user_id=user_id))
    audit.record("recovery_link_made", user_id=user_id)
    return mails.link(RECOVERY, user_id, email_key, seconds=RECOVERY_MINUTES * 60)
