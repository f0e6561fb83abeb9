"""The commands with which an operator changes what the API does not let owners change."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from flask import current_app
from marshmallow import ValidationError

from phresh.accounts import audit
from phresh.admin import services
from phresh.cleanings.queries import changed_cleaning, deleted_cleaning
from phresh.cleanings.schemas import CleaningUpdateSchema
from phresh.cli.database import require_database, tables
from phresh.database.statements import Query
from phresh.database.transactions import fetch, transaction
from phresh.deletion.services import delete_account as delete_all
from phresh.deletion.services import delete_some
from phresh.web.fields import INTEGER_MAX

R = TypeVar("R")
ID = click.IntRange(1, INTEGER_MAX)
NO_ACCOUNT = "There is no such account."


def _in_transaction(work: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Do the work and write its line of the audit log, or neither."""
    require_database()
    with tables():
        return transaction(work)(*args, **kwargs)


def _written(query: Query, action: str, target: str) -> tuple[Any, ...]:
    """Return the row of a query that writes, after its line of the audit log.

    :raises click.ClickException: when there is none
    """
    found = fetch(query)
    if not found:
        raise click.ClickException(f"There is no such {target.partition(' ')[0]}.")
    audit.record(action, target=target)
    return found[0]


def _user_id(username: str) -> int:
    require_database()
    with tables():
        user_id = services.user_id_of(username)
    if user_id is None:
        raise click.ClickException(NO_ACCOUNT)
    return user_id


class JSONObject(click.ParamType):
    """A JSON object as the API takes it."""

    name = "JSON"

    def convert(self, value: Any, *_: Any) -> Any:
        """Return what the JSON text says.

        :raises click.BadParameter: for text that is not JSON
        """
        try:
            return current_app.json.loads(value)
        except ValueError as error:
            self.fail(f"Malformed JSON: {error}.")


@click.command("change-cleaning")
@click.argument("cleaning_id", type=ID)
@click.argument("changes", type=JSONObject())
def change_cleaning(cleaning_id: int, changes: Any) -> None:
    """Change any cleaning, like: flask change-cleaning 7 '{"price": 31}'"""
    try:
        loaded = CleaningUpdateSchema().load(changes)
    except ValidationError as error:
        raise click.ClickException(current_app.json.dumps(error.messages)) from None

    change = changed_cleaning(cleaning_id=cleaning_id, **loaded)
    click.echo(_in_transaction(_written, change, "cleaning_changed", f"cleaning {cleaning_id}")[0])


@click.command("delete-cleaning")
@click.argument("cleaning_id", type=ID)
def delete_cleaning(cleaning_id: int) -> None:
    """Delete any cleaning."""
    delete = deleted_cleaning(cleaning_id=cleaning_id)
    _in_transaction(_written, delete, "cleaning_deleted", f"cleaning {cleaning_id}")
    click.echo(f"Deleted cleaning {cleaning_id}.")


@click.command("disable-account")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Enable the account again.")
@click.option("--reason", help="Why, for the audit log.")
def disable_account(username: str, undo: bool, reason: str | None) -> None:
    """Disable an account: delete its tokens and let nobody log in to it."""
    if not _in_transaction(services.set_active, username, is_active=undo, reason=reason):
        raise click.ClickException(NO_ACCOUNT)
    click.echo(f"{'Enabled' if undo else 'Disabled'} {username}.")


@click.command("delete-account")
@click.argument("username")
def delete_account(username: str) -> None:
    """Delete an account of any size, in small steps; it is disabled first."""
    user_id = _user_id(username)
    _in_transaction(services.set_active, username, is_active=False)
    while transaction(delete_some)(user_id, 1_000):
        pass

    def remove() -> None:
        delete_all(user_id)
        audit.record("account_deleted", user_id=user_id)

    _in_transaction(remove)
    click.echo(f"Deleted {username}.")


@click.command("recover-account")
@click.argument("username")
def recover_account(username: str) -> None:
    """Print a link that sets a new password, good for an hour, to hand over to its owner."""
    if not (current_app.config["PUBLIC_URL"] or current_app.config["ACCOUNT_URL"]):
        raise click.ClickException("PUBLIC_URL: Set it to the URL of the API, for the link.")
    click.echo(_in_transaction(services.recovery_link, _user_id(username)))


@click.command("remove-two-factor")
@click.argument("username")
def remove_two_factor(username: str) -> None:
    """Remove the second factor of an account whose owner has lost it."""
    if not _in_transaction(services.remove_second_factor, _user_id(username)):
        raise click.ClickException("The account has no second factor.")
    click.echo(f"Removed the second factor of {username}.")


@click.command("make-operator")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Let the account no longer be an operator.")
def make_operator(username: str, undo: bool) -> None:
    """Let an account use /api/admin/."""
    if not _in_transaction(services.set_operator, username, is_operator=not undo):
        raise click.ClickException(NO_ACCOUNT)
    click.echo(f"{username} is {'no longer' if undo else 'now'} an operator.")
