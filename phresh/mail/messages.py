"""Messages, made of templates.

Each mail has a folder under ``templates/``, and in it for each language ``en.subject.txt``,
``en.txt`` and ``en.html``.
"""

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

# Links stay whole, for who reads a mail as a file; every server takes the lines (RFC 5322 2.1.1).
POLICY = SMTP.clone(max_line_length=200, cte_type="7bit", raise_on_defect=True)


@cache
def environment() -> Environment:
    """Return the environment of the templates, which escapes every value in HTML."""
    return Environment(
        loader=PackageLoader("phresh.mail"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def make(name: str, language: str, *, to: str, sender: str, **values: Any) -> EmailMessage:
    """Return the message that a mail's templates make.

    :param name: of the mail: its folder
    :param language: one of ``phresh.web.languages.LANGUAGES``
    :param to: an email address
    :param sender: an email address, as ``MAIL_FROM`` has it
    :raises jinja2.UndefinedError: when a template needs a value that is missing
    :raises ValueError: for an address or a subject with a line break
    """
    message = EmailMessage(policy=POLICY)
    message["From"] = sender
    local, _, domain = to.rpartition("@")
    message["To"] = Address(username=local, domain=domain)
    message["Subject"] = _rendered(f"{name}/{language}.subject.txt", values).strip()
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">"))
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers
    message["Content-Language"] = language
    message.set_content(_rendered(f"{name}/{language}.txt", values))
    html = _rendered(f"{name}/{language}.html", {**values, "language": language})
    message.add_alternative(html, subtype="html")
    return message


def _rendered(template: str, values: dict[str, Any]) -> str:
    return environment().get_template(template).render(values)


def names() -> list[str]:
    """Return the names of all mails."""
    templates = environment().list_templates()
    return sorted({name.partition("/")[0] for name in templates if "/" in name})
