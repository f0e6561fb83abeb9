"""How everything that is stored about an account becomes one document."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, NamedTuple

from flask import current_app
from flask_smorest import abort

from phresh.accounts.queries import user_by_id
from phresh.accounts.tokens import reject_token
from phresh.database.transactions import fetch, snapshot
from phresh.export.queries import BATCH, SECTIONS, batch
from phresh.export.schemas import SIZE_MAX
from phresh.profiles.queries import own_profile

MEMORY_MAX = 256 * 1024  # bytes of a document in memory; a longer one is in a temporary file
TOO_LARGE = (
    f"There are more than {SIZE_MAX // 1024**2} MiB about this account, too many for one response. "
    "Read the lists page by page, or write to the operator, who can read it in the database."
)


class Document(NamedTuple):
    """A document that is complete and has not been sent."""

    file: IO[bytes]
    size: int
    etag: str


def export(user_id: int) -> Document:
    """Return everything that is stored about a user, in a file to be closed.

    It is not sent while it is read: a client that takes its time would keep a connection and a
    transaction of the database for so long, and an error in the middle could not be a response.

    Respond 409 if it is too large, and 503 if there is no room for it.
    """
    file: IO[bytes] = SpooledTemporaryFile(MEMORY_MAX)  # noqa: SIM115 - it is sent later
    try:
        size, etag = _write(file, user_id)
        file.seek(0)
    except BaseException as error:
        with suppress(OSError):  # it may still have something to write
            file.close()
        if not isinstance(error, OSError):
            raise
        current_app.logger.error("A temporary file could not be written: %s", error)
        abort(503, message="The server has no room for the document. Try again later.")
    return Document(file, size, etag)


@snapshot
def _write(file: IO[bytes], user_id: int) -> tuple[int, str]:
    """Write the document; return its size and its entity tag."""
    file.seek(0)
    file.truncate()  # after a first try
    size, digest = 0, hashlib.sha256()
    for text in _texts(user_id):
        data = text.encode()
        size += len(data)
        if size > SIZE_MAX:
            abort(409, message=TOO_LARGE)
        digest.update(data)
        file.write(data)
    return size, f'"{digest.hexdigest()}"'


def _texts(user_id: int) -> Iterator[str]:
    """Yield the document, a batch of rows at a time."""
    account = fetch(user_by_id(user_id=user_id))
    if not account:
        reject_token()
    profile = fetch(own_profile(user_id=user_id))
    yield f'{{"account" : {account[0][0]}, "profile" : {profile[0][0]}'
    for section in SECTIONS:
        yield f', "{section}" : ['
        for number, texts in enumerate(_batches(section, user_id)):
            yield (", " if number else "") + ", ".join(texts)
        yield "]"
    yield "}"


def _batches(section: str, user_id: int) -> Iterator[list[str]]:
    after: dict[str, object] = {}
    while rows := fetch(batch(section, user_id=user_id, **after)):
        yield [text for text, *_ in rows]
        if len(rows) < BATCH:
            return
        after = {f"after_{number}": key for number, key in enumerate(rows[-1][1:])}
