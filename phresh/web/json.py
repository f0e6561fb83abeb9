"""JSON as requests and responses have it."""

import json
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from math import inf
from typing import Any, NoReturn

from flask.json.provider import DefaultJSONProvider
from marshmallow.fields import DateTime


def init_app() -> None:
    """Let every field of marshmallow dump times as :func:`time_text` does."""
    for name in ("iso", "iso8601"):  # the first is the default
        DateTime.SERIALIZATION_FUNCS[name] = time_text


def time_text(time: datetime) -> str:
    """Return a time as clients get it: RFC 3339 in UTC with six decimals, like ``row_json``.

    :param time: without a time zone it is in UTC
    """
    in_utc = time if time.tzinfo is None else time.astimezone(UTC)
    return f"{in_utc.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


class StrictJSONProvider(DefaultJSONProvider):
    """JSON as RFC 8259 has it, whatever is doubtful rejected; fractions become Decimal."""

    sort_keys = False

    @staticmethod
    def default(o: Any) -> Any:
        """Return how a value that JSON does not have is sent: a Decimal as the same number.

        :raises TypeError: for a Decimal that would lose digits, or a type unknown here
        """
        if isinstance(o, datetime):
            return time_text(o)
        if not isinstance(o, Decimal):
            return DefaultJSONProvider.default(o)
        number = float(o)
        if Decimal(repr(number)) != o:
            raise TypeError(f"{o} has more digits than a JSON number keeps: send it as a string.")
        return number

    def dumps(self, obj: Any, **options: Any) -> str:
        """Return JSON text.

        :raises ValueError: for NaN or infinity, which JSON does not have
        """
        return super().dumps(obj, allow_nan=False, **options)

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Return what JSON text says.

        :raises ValueError: for text that is not JSON, repeats a key, is nested too deeply, or
            has a number of too many digits (RFC 8259 9 allows such limits)
        """
        try:
            return _decode(s if isinstance(s, str) else s.decode())
        except (RecursionError, ArithmeticError) as error:
            raise ValueError("nested too deeply, or a number of too many digits") from error


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return members


_exact = Context(
    prec=1_000, Emax=1_000, Emin=-1_000, traps=[Inexact, InvalidOperation, Overflow]
).create_decimal


def _fraction(text: str) -> Decimal | float:
    """Return a number; infinity, which no field accepts, for one with more than 1,000 digits.

    Whatever makes an integer of 1e999999999 would write down all its digits. (The limit for the
    digits of integers is Python's.)
    """
    try:
        return _exact(text)
    except (Inexact, Overflow):
        Decimal(text)  # raises for an exponent of more than 18 digits
        return inf


_decode = json.JSONDecoder(
    parse_float=_fraction, parse_constant=_reject_constant, object_pairs_hook=_unique_keys
).decode
