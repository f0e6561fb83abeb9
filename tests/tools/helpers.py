"""Small functions that several tests use."""

import re
from typing import Any

from sqlalchemy import Executable, text

from phresh.database.statements import query


@query
def sql_text(statement: str) -> Executable:
    """The SQL as it stands, for a view that a test makes."""
    return text(statement).execution_options(plan_by_values=True)


def next_page(response: Any) -> str | None:
    """Return the URL of the next page by a response's `Link`, None after the last page."""
    link = response.headers.get("Link")
    return re.fullmatch(r'<(.+)>; rel="next"', link)[1] if link else None
