"""What SQLAlchemy offers means the same under @query, prepared and not, or is a TypeError."""

import enum
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from flask.testing import FlaskClient
from sqlalchemy import (
    ARRAY,
    CHAR,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from phresh import create_app
from phresh.database.base import db
from phresh.database.statements import query, row_json
from phresh.database.transactions import fetch
from phresh.web.app import App

numbers = count(1)
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Base(DeclarativeBase):
    """Tables that only these tests have."""


class Color(enum.Enum):
    RED = "r"
    BLUE = 'b"\\'


class Shouted(TypeDecorator):
    """Text that is stored in capitals and read in small letters."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value and value.upper()

    def process_result_value(self, value, dialect):
        return value and value.lower()


def from_context(context):
    return context.get_current_parameters()["text"]


class Writer(Base):
    __tablename__ = "idiom_writers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


class Note(Base):
    __tablename__ = "idiom_notes"
    id: Mapped[int] = mapped_column(Identity(start=1000), primary_key=True)
    text: Mapped[str | None]
    author_id: Mapped[int | None] = mapped_column(ForeignKey(Writer.id))
    serial: Mapped[int] = mapped_column(default=lambda: next(numbers))
    seven: Mapped[int] = mapped_column(default=7)
    changed: Mapped[int] = mapped_column(
        default=lambda: next(numbers), onupdate=lambda: next(numbers)
    )
    native: Mapped[Color | None] = mapped_column(Enum(Color, name="idiom_color"))
    plain: Mapped[Color | None] = mapped_column(Enum(Color, native_enum=False))
    favorite: Mapped[Color] = mapped_column(Enum(Color, native_enum=False), default=Color.BLUE)
    data: Mapped[dict | list | None] = mapped_column(JSONB)
    shouted: Mapped[str | None] = mapped_column(Shouted)
    short: Mapped[str | None] = mapped_column(String(3))
    code: Mapped[str | None] = mapped_column(CHAR(3))
    price: Mapped[Decimal | None] = mapped_column(Numeric(6, 2))
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    second: Mapped[datetime | None] = mapped_column(postgresql.TIMESTAMP(precision=0))
    day: Mapped[date | None]
    took: Mapped[timedelta | None] = mapped_column(Interval)
    flag: Mapped[bool | None]
    real: Mapped[float | None]
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    key: Mapped[uuid.UUID | None]
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    colors: Mapped[list[Color] | None] = mapped_column(ARRAY(Enum(Color, name="idiom_color")))


class Keyed(Base):
    __tablename__ = "idiom_keyed"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    text: Mapped[str | None]


class Contextual(Base):
    __tablename__ = "idiom_contextual"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    text: Mapped[str | None]
    copy: Mapped[str | None] = mapped_column(default=from_context)


@pytest.fixture(autouse=True)
def unchecked_client(monkeypatch):
    """Use Flask's own test client: the views here do more than their document says."""
    monkeypatch.setattr(App, "test_client_class", FlaskClient)


@pytest.fixture(scope="module", params=[True, False], ids=["prepared", "unprepared"])
def served(request, settings, owner_engine):
    """An app with one connection, and the tables."""
    if request.param and not settings["PREPARED_STATEMENTS"]:
        pytest.skip("Not through PgBouncer")
    app = create_app({**settings, "POOL_SIZE": 1, "PREPARED_STATEMENTS": request.param})
    Base.metadata.create_all(owner_engine)
    with app.app_context():
        yield app
        db.engine.dispose()
    Base.metadata.drop_all(owner_engine)


@pytest.fixture
def connected(served):
    """The app in its context, and empty tables but for two writers."""
    with served.app_context(), db.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(delete(table))
        connection.execute(insert(Writer), [{"id": 1, "name": "anna"}, {"id": 2, "name": "ben"}])
    return served


@query
def new_note(**values):
    return insert(Note).values(values).returning(Note.id)


@query
def column_of_note(name, *, note_id):
    return select(getattr(Note, name)).where(Note.id == note_id)


@query
def ids_where(name, operator, *, value):
    condition = getattr(getattr(Note, name), operator)(value)
    return select(Note.id).where(condition).order_by(Note.id)


def new(**values):
    [(note_id,)] = fetch(new_note(**values))
    return note_id


def stored(note_id, name):
    [(value,)] = fetch(column_of_note(name, note_id=note_id))
    return value


def found(name, operator, value):
    return [note_id for (note_id,) in fetch(ids_where(name, operator, value=value))]


def as_sqlalchemy(name, operator, value):
    """The ids that SQLAlchemy finds itself."""
    condition = getattr(getattr(Note, name), operator)(value)
    with db.engine.connect() as connection:
        return list(
            connection.execute(select(Note.id).where(condition).order_by(Note.id)).scalars()
        )


# Defaults


def test_a_default_is_computed_each_time_and_never_null(connected):
    first, second = new(text="a"), new(text="b")
    assert stored(second, "serial") > stored(first, "serial") > 0
    assert stored(first, "changed") > 0
    assert (stored(first, "seven"), stored(first, "favorite")) == (7, Color.BLUE)


def test_a_value_that_is_passed_replaces_the_default(connected):
    note = new(text="a", serial=-1, seven=8, favorite=Color.RED)
    assert [stored(note, name) for name in ("serial", "seven", "favorite")] == [-1, 8, Color.RED]


def test_an_onupdate_is_computed_each_time(connected):
    @query
    def changed_note(*, note_id, text):
        return update(Note).where(Note.id == note_id).values(text=text)

    note = new(text="a")
    seen = [stored(note, "changed")]
    for text in "bc":
        fetch(changed_note(note_id=note, text=text))
        seen.append(stored(note, "changed"))
    assert seen == sorted(set(seen))
    assert (stored(note, "text"), stored(note, "seven")) == ("c", 7)


def test_a_key_by_uuid4_is_another_each_time(connected):
    @query
    def new_keyed(*, text):
        return insert(Keyed).values(text=text).returning(Keyed.id)

    keys = {fetch(new_keyed(text="a"))[0][0] for _ in range(3)}
    assert len(keys) == 3
    assert all(isinstance(key, uuid.UUID) and key.version == 4 for key in keys)


def test_each_row_of_an_insert_has_its_own_default(connected):
    @query
    def two(*, one, other):
        return insert(Note).values([{"text": one}, {"text": other}]).returning(Note.serial)

    assert len(set(fetch(two(one="a", other="b")))) == 2


def test_a_default_in_a_cte_is_computed(connected):
    @query
    def new_in_cte(*, text):
        new = insert(Note).values(text=text).returning(Note.serial, Note.seven).cte()
        return select(new.c.serial > 0, new.c.seven)

    @query
    def changed_in_cte(*, text):
        new = update(Note).values(text=text).returning(Note.serial, Note.changed).cte()
        return select(new.c.changed > new.c.serial)

    assert fetch(new_in_cte(text="a")) == [(True, 7)]
    assert fetch(changed_in_cte(text="a")) == [(True,)]


def test_a_default_beside_a_cte_that_writes_is_computed(connected):
    @query
    def beside(*, name, text):
        writer = insert(Writer).values(id=3, name=name).returning(Writer.id).cte()
        return insert(Note).add_cte(writer).values(text=text).returning(Note.seven, Note.serial > 0)

    assert fetch(beside(name="carl", text="a")) == [(7, True)]
    assert stored_names() == ["anna", "ben", "carl"]


def stored_names():
    with db.engine.connect() as connection:
        return list(connection.execute(select(Writer.name).order_by(Writer.id)).scalars())


def test_an_upsert_has_the_default_where_it_inserts(connected):
    @query
    def put(*, note_id, text):
        new = postgresql.insert(Note).values(id=note_id, text=text)
        changed = new.on_conflict_do_update(index_elements=["id"], set_={"text": text})
        return changed.returning(Note.text, Note.seven)

    assert fetch(put(note_id=900, text="a")) == [("a", 7)]
    assert fetch(put(note_id=900, text="b")) == [("b", 7)]


def test_a_default_that_needs_the_other_values_is_refused(connected):
    @query
    def new_contextual(*, text):
        return insert(Contextual).values(text=text)

    with pytest.raises(TypeError, match=r"default of idiom_contextual\.copy .* pass the value"):
        fetch(new_contextual(text="a"))


# in_() and not_in()

VALUES = {
    "text": ["a", 'b"c', "d\\e,{}'%s", "", "NULL"],
    "seven": [1, 2, -3],
    "native": list(Color),
    "plain": list(Color),
    "shouted": ["loud", "quiet"],
    "short": ["abc", "ab"],
    "code": ["abc", "ab"],
    "price": [Decimal("1.23"), Decimal("-4.50")],
    "at": [NOON, NOON + timedelta(microseconds=1)],
    "second": [NOON.replace(tzinfo=None)],
    "day": [date(2026, 11, 27), date(1, 1, 1)],
    "took": [timedelta(-3, 5, 7), timedelta(hours=30)],
    "flag": [True, False],
    "real": [0.1, 1e300, float("inf")],
    "blob": [b"\0\xff", b""],
    "key": [uuid.UUID(int=1), uuid.UUID(int=2)],
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("operator", ["in_", "not_in"])
def test_a_list_of_any_length_fits(connected, name, operator):
    values = VALUES[name]
    for value in values:
        new(**{name: value})
    if name != "seven":
        new(**{name: None})
    for length in range(len(values) + 1):
        chosen = values[:length]
        expected = as_sqlalchemy(name, operator, chosen)
        assert found(name, operator, chosen) == expected
        assert found(name, operator, tuple(chosen)) == expected
        assert found(name, operator, dict.fromkeys(chosen).keys()) == expected
    assert found(name, "in_", values) == as_sqlalchemy(name, "in_", values) != []


@pytest.mark.parametrize(
    "parameter", [bindparam("text", "a", literal_execute=True), bindparam("text", expanding=True)]
)
def test_a_parameter_that_is_rendered_when_it_is_run_is_refused(parameter):
    @query
    def with_parameter():
        return select(Note.id).where(func.lower(Note.text) == func.lower(parameter))

    with pytest.raises(TypeError, match="pass the values by keyword"):
        with_parameter()


@pytest.mark.parametrize("values", [[None], ["a", None], [None, "b"]])
@pytest.mark.parametrize("operator", ["in_", "not_in"])
@pytest.mark.parametrize("name", ["text", "plain", "seven"])
def test_null_in_a_list_equals_nothing(connected, name, operator, values):
    made = {"a": {"plain": Color.RED, "seven": 1}, "b": {"plain": Color.BLUE, "seven": 2}}
    for text, others in made.items():
        new(text=text, **others)
    new(text=None)
    values = [value and (value if name == "text" else made[value][name]) for value in values]
    assert found(name, operator, values) == as_sqlalchemy(name, operator, values)


def test_what_is_too_long_or_too_exact_for_the_column_is_in_no_row(connected):
    new(short="abc", price=Decimal("1.23"), second=NOON.replace(tzinfo=None), code="abc")
    assert found("short", "in_", ["abcd"]) == []
    assert found("code", "in_", ["abcd"]) == []
    assert found("price", "in_", [Decimal("1.234")]) == []
    assert found("second", "in_", [NOON.replace(tzinfo=None, microsecond=1)]) == []


def test_1000_values_fit(connected):
    ids = [new(seven=n) for n in range(3)]
    assert found("seven", "in_", range(1000)) == ids


def test_a_list_decides_nothing_of_the_statement(connected):
    statements = {ids_where("text", "in_", value=["x"] * n).statement for n in range(5)}
    assert len(statements) == 1


def test_a_list_that_the_query_has_itself_fits(connected):
    @query
    def of_the_first(*, native):
        in_lists = (Note.text.in_(["a", "b"]), Note.seven.not_in([]), Note.serial.not_in([-1, -2]))
        return select(Note.id).where(
            *in_lists, Note.native.in_(native), Note.plain.in_([Color.RED])
        )

    first = new(text="a", native=Color.RED, plain=Color.RED)
    new(text="c", native=Color.RED, plain=Color.RED)
    assert fetch(of_the_first(native=[Color.RED])) == [(first,)]


def test_a_subquery_and_a_list_of_expressions_fit(connected):
    @query
    def with_expressions(*, low, text):
        writers = select(Writer.id).where(Writer.id > low)
        listed = Note.text.in_([text, func.lower("B")])
        return select(Note.text).where(Note.author_id.in_(writers), listed)

    new(text="a", author_id=1)
    new(text="b", author_id=2)
    assert fetch(with_expressions(low=1, text="x")) == [("b",)]


def test_in_holds_for_updates_and_deletes(connected):
    @query
    def changed(*, ids, text):
        return update(Note).where(Note.id.in_(ids)).values(text=text)

    @query
    def deleted(*, ids):
        return delete(Note).where(Note.id.not_in(ids)).returning(Note.id)

    first, second, third = new(), new(), new()
    fetch(changed(ids=[first, third], text="x"))
    assert found("text", "__eq__", "x") == [first, third]
    assert fetch(deleted(ids=[first, third])) == [(second,)]


@pytest.mark.parametrize("value", ["ab", b"ab", 5, None])
def test_what_is_no_list_is_refused(connected, value):
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"in_\(value\) takes a list of values, not {kind}"):
        found("text", "in_", value)


def test_a_list_of_rows_is_refused(connected):
    @query
    def of_pairs(*, pairs):
        return select(Note.id).where(tuple_(Note.id, Note.text).in_(pairs))

    with pytest.raises(TypeError, match="compare single columns"):
        of_pairs(pairs=[(1, "a")])


# Types

STORED = {
    "native": list(Color),
    "plain": list(Color),
    "data": [{"a": [1, {"é": None}]}, [1, "two", None], {}, [], "text", 5, True],
    "shouted": ["loud"],
    "price": [Decimal("12.30")],
    "at": [NOON],
    "day": [date(2026, 11, 27)],
    "took": [timedelta(days=-1, seconds=5, microseconds=6)],
    "flag": [True, False],
    "real": [0.1],
    "blob": [b"\0\xff'\\", b""],
    "key": [uuid.UUID(int=5)],
    "tags": [["a", 'b"c', "d\\e,{}", "", "NULL", None], []],
    "colors": [list(Color), [], [Color.RED, None]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in STORED.items() for value in values]
)
def test_a_value_comes_back_as_it_was_sent(connected, name, value):
    note = new(**{name: value})
    got = stored(note, name)
    assert got == value
    assert type(got) is type(value)
    if name != "data":
        assert found(name, "__eq__", value) == [note]
        assert found(name, "__ne__", value) == []
    with db.engine.connect() as connection:  # as SQLAlchemy reads it
        read = connection.execute(select(getattr(Note, name)).where(Note.id == note)).scalar()
    assert read == value


@pytest.mark.parametrize("name", STORED)
def test_null_comes_back_as_none(connected, name):
    assert stored(new(text="all others are null"), name) is None
    assert stored(new(**{name: None}), name) is None


def test_none_for_jsonb_is_the_null_of_json_as_in_sqlalchemy(connected, sql):
    new(data=None)
    with db.engine.begin() as connection:
        connection.execute(insert(Note).values(data=None))
    assert sql("SELECT data::text FROM idiom_notes") == [("null",), ("null",)]


def test_a_type_decorator_binds_and_reads(connected, sql):
    note = new(shouted="loud")
    assert sql("SELECT shouted FROM idiom_notes") == [("LOUD",)]
    assert stored(note, "shouted") == "loud"
    assert found("shouted", "__eq__", "Loud") == [note]


def test_values_in_an_expression_have_the_type_of_the_column(connected):
    @query
    def changed(*, note_id, color, data, price):
        where = Note.id == note_id, or_(Note.native == color, Note.native.is_(None))
        return update(Note).where(*where).values(native=color, data=data, price=Note.price + price)

    note = new(price=1)
    fetch(changed(note_id=note, color=Color.RED, data={"a": 1}, price=Decimal("0.50")))
    assert stored(note, "native") is Color.RED
    assert stored(note, "data") == {"a": 1}
    assert stored(note, "price") == Decimal("1.50")


def test_a_value_with_two_types_is_refused(connected):
    @query
    def either(*, value):
        return select(Note.id).where(or_(Note.plain == value, Note.text == value))

    with pytest.raises(TypeError, match="value value is used with two types"):
        either(value=Color.RED)


# None


@pytest.mark.parametrize("name", ["text", "native", "author_id", "shouted", "data", "tags"])
def test_none_is_compared_as_is_null(connected, name):
    value = {"native": Color.RED, "author_id": 1, "data": {}, "tags": []}.get(name, "a")
    without, with_value = new(), new(**{name: value})
    assert found(name, "__eq__", None) == as_sqlalchemy(name, "__eq__", None) == [without]
    assert found(name, "__ne__", None) == as_sqlalchemy(name, "__ne__", None) == [with_value]


def test_none_is_compared_so_from_the_other_side_and_negated(connected):
    @query
    def reversed_(*, value):
        return select(Note.id).where(value == Note.text)

    @query
    def negated(*, value):
        return select(Note.id).where(~(Note.text == value))

    without, with_value = new(), new(text="a")
    assert fetch(reversed_(value=None)) == [(without,)]
    assert fetch(negated(value=None)) == [(with_value,)]


@pytest.mark.parametrize("operator", ["is_", "is_not", "is_distinct_from", "is_not_distinct_from"])
@pytest.mark.parametrize("value", [None, True, False])
def test_is_takes_a_value(connected, operator, value):
    for flag in (None, True, False):
        new(flag=flag)
    assert found("flag", operator, value) == as_sqlalchemy("flag", operator, value) != []


def test_none_in_updates_and_deletes(connected):
    @query
    def changed(*, text, new):
        return update(Note).where(Note.text == text).values(short=new)

    @query
    def deleted(*, text):
        return delete(Note).where(Note.text != text).returning(Note.id)

    without, with_value = new(short="x"), new(text="a", short="x")
    fetch(changed(text=None, new=None))
    assert (stored(without, "short"), stored(with_value, "short")) == (None, "x")
    assert fetch(deleted(text=None)) == [(with_value,)]


def test_only_none_that_is_compared_makes_another_statement(connected):
    @query
    def changed(*, note_id, text, short, author_id):
        values = {"text": text, "short": short}
        return update(Note).where(Note.id == note_id, Note.author_id == author_id).values(values)

    def made(**values):
        return changed(note_id=1, **values).statement

    plain = made(text="a", short="b", author_id=1)
    for text, short in ((None, "b"), ("a", None), (None, None)):
        assert made(text=text, short=short, author_id=2) is plain
    with_null = made(text=None, short="a", author_id=None)
    assert with_null is not plain
    assert made(text="a", short=None, author_id=None) is with_null


# What is decided when the statement is made


@pytest.mark.parametrize(
    "test",
    [
        bool,
        lambda value: not value,
        lambda value: value == "a",
        lambda value: value != "a",
        lambda value: value in ("a", "b"),
        lambda value: "a" if value > 1 else "b",
        lambda value: value and "a",
    ],
)
def test_a_test_of_a_value_is_refused(test):
    @query
    def depends(*, value):
        if test(value):
            return select(Note.id)
        return select(Note.text)

    with pytest.raises(TypeError, match=r"depends\(\) tests a value .* by position"):
        depends(value="a")


def test_a_comparison_from_the_side_of_the_value_is_an_expression(connected):
    @query
    def over(*, low):
        return select(Note.id).where(low < Note.seven, low != Note.seven, low + 1 == Note.seven)

    note = new(seven=3)
    assert fetch(over(low=2)) == [(note,)]


# RETURNING


def author(user_id):
    writer = aliased(Writer)
    return select(row_json(writer.name)).where(writer.id == user_id).scalar_subquery()


RENDERED = row_json(Note.text, author(Note.author_id).label("author"))


@pytest.fixture
def three(connected):
    """Other rows, which a subquery that is not about the written one would find."""
    for author_id in (1, 2, None):
        new(text="other", author_id=author_id)


def returned(query):
    [(text,)] = fetch(query)
    return text.replace(" ", "")


@pytest.mark.parametrize(("author_id", "name"), [(1, "anna"), (2, "ben"), (None, None)])
def test_a_subquery_in_returning_is_about_the_row_that_was_written(three, author_id, name):
    @query
    def new_rendered(**values):
        return insert(Note).values(values).returning(RENDERED)

    @query
    def changed(*, text, new):
        return update(Note).where(Note.text == text).values(text=new).returning(RENDERED)

    @query
    def deleted(*, text):
        return delete(Note).where(Note.text == text).returning(RENDERED)

    @query
    def new_in_cte(**values):
        new = insert(Note).values(values).returning(RENDERED.label("rendered")).cte()
        return select(new.c.rendered)

    @query
    def put(*, note_id, **values):
        new = postgresql.insert(Note).values(id=note_id, **values)
        changed = new.on_conflict_do_update(index_elements=["id"], set_=values)
        return changed.returning(RENDERED)

    person = f'{{"name":"{name}"}}' if name else "null"

    def expected(text):
        return f'{{"text":"{text}","author":{person}}}'

    values = {"text": "new", "author_id": author_id}
    assert returned(new_rendered(**values)) == expected("new")
    assert returned(changed(text="new", new="changed")) == expected("changed")
    assert returned(deleted(text="changed")) == expected("changed")
    assert returned(new_in_cte(**values)) == expected("new")
    assert returned(put(note_id=900, **values)) == expected("new")
    assert returned(put(note_id=900, text="again", author_id=author_id)) == expected("again")


def test_a_subquery_in_returning_can_be_about_a_table_that_the_update_joins(three):
    @query
    def changed(*, text, writer_id):
        joined = update(Note).where(Note.text == text, Writer.id == writer_id)
        return joined.values(text="changed").returning(Note.text, author(Writer.id))

    new(text="one", author_id=1)
    assert fetch(changed(text="one", writer_id=2)) == [("changed", '{"name" : "ben"}')]


# What row_json renders


def test_a_row_is_rendered_as_postgresql_renders_it_but_for_times(connected):
    values = {
        "text": 'Line\nand "\\ é',
        "price": "20.50",
        "data": {"a": [1, None]},
        "tags": ["x y"],
    }
    new(**values, at=NOON, day=NOON.date(), flag=True, real=0.5, native=Color.RED)
    columns = [column for column in Note.__table__.c if column.name not in ("at", "second")]
    named = [part for each in columns for part in (literal_column(f"'{each.name}'"), each)]

    @query
    def rendered():
        return select(row_json(*columns), cast(func.json_build_object(*named), Text))

    [(ours, theirs)] = fetch(rendered())
    assert ours == theirs


class Clock(TypeDecorator):
    impl = DateTime(timezone=True)
    cache_ok = True


@pytest.mark.parametrize("kind", [DateTime(timezone=True), DateTime(), Clock()])
@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2026-11-27 19:04:23.4917", '"2026-11-27T19:04:23.491700Z"'),
        ("2026-11-27 19:04:23", '"2026-11-27T19:04:23.000000Z"'),
        ("0099-01-02 00:00:00.000001", '"0099-01-02T00:00:00.000001Z"'),
        (None, "null"),
    ],
)
def test_times_are_rendered_in_utc_with_six_decimals(connected, kind, written, text):
    @query
    def rendered(*, written):
        return select(row_json(cast(cast(written, Text), kind).label("it's")))

    assert fetch(rendered(written=written)) == [(f"""{{"it's" : {text}}}""",)]


def test_columns_that_an_outer_join_makes_null_are_null(connected):
    @query
    def joined():
        joined = select(row_json(Note.text, Writer.id, Writer.name))
        return joined.join_from(Note, Writer, isouter=True).order_by(Note.id)

    new(text="hers", author_id=1)
    new(text="nobody's")
    found = [json.loads(text) for (text,) in fetch(joined())]
    assert found == [
        {"text": "hers", "id": 1, "name": "anna"},
        {"text": "nobody's", "id": None, "name": None},
    ]


# What fetch takes


@pytest.mark.parametrize(
    "statement", [insert(Note).values(text="a"), select(Note.id), "SELECT 1", None]
)
def test_a_statement_without_query_is_refused(connected, statement):
    kind = type(statement).__name__
    with pytest.raises(TypeError, match=rf"under @query returns, not {kind}\..*db\.session"):
        fetch(statement)


def test_percent_signs_and_constants_are_sent_as_they_are(connected):
    @query
    def with_percent(*, text):
        return select(literal("100 %s"), Note.text.like("a%"), cast(7, Note.seven.type) % 4).where(
            Note.text == text
        )

    new(text="a%b")
    assert fetch(with_percent(text="a%b")) == [("100 %s", True, 3)]
