"""The commands for mail."""

from pathlib import Path

import click
from flask import current_app

from phresh.mail import messages
from phresh.web.languages import LANGUAGES

TO = "anna@phresh.example"
# A value for everything that a mail can say.
VALUES = {
    "email": TO,
    "username": "anna",
    "link": "https://phresh.example/account/#token=x",
    "days": 7,
    "minutes": 60,
    "address": "192.0.2.1",
    "at": "2026-11-27 19:04 UTC",
}


@click.group()
def mail() -> None:
    """Look at mails."""


@mail.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def preview(folder: Path) -> None:
    """Write every mail in every language into a folder: as mail, and as HTML."""
    folder.mkdir(parents=True, exist_ok=True)
    sender = current_app.config["MAIL_FROM"]
    for name in messages.names():
        for language in LANGUAGES:
            message = messages.make(name, language, to=TO, sender=sender, **VALUES)
            path = folder / f"{name}.{language}.eml"
            path.write_bytes(message.as_bytes())
            *_, html = message.iter_parts()
            path.with_suffix(".html").write_text(html.get_content())
            click.echo(path)
