"""A sample marketplace, always the same."""

import io
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import click
from sqlalchemy import Connection, text

from phresh.accounts.passwords import passwords
from phresh.database.base import db
from phresh.database.deadlines import without_wait_callback

# By username: the full name and the bio.
PEOPLE = {
    "demo-anna": ("Anna Winter", "Three rooms, one dog, no time."),
    "demo-ben": ("Ben Okafor", "I bring my own mop."),
    "demo-cleo": ("Cleo Lindqvist", "Windows are my favourite."),
    "demo-dora": ("Dora Novak", None),
}
ANNA, BEN, CLEO, DORA = PEOPLE

# Name, description, type, price and owner; None is a guest.
JOBS = [
    ("My house", "Two floors, and the dog helps.", "full_clean", "29.99", ANNA),
    ("Someone else's house", None, "spot_clean", "19.99", None),
    ("Flat above the bakery", "Flour gets everywhere.", "dust_up", "15.50", BEN),
    ("Garden shed", "Spiders have to be carried out, not killed.", "spot_clean", "12.00", None),
    ("Studio under the roof", "Sixth floor, no lift.", "full_clean", "24.00", ANNA),
    ("Reading room of the library", "Quietly, please.", "dust_up", "18.25", DORA),
    (
        "Kitchen after a wedding",
        "Ninety guests, a chocolate fountain.",
        "full_clean",
        "45.00",
        ANNA,
    ),
    ("Grandmother's flat", "She makes tea.", "spot_clean", "21.00", DORA),
    ("Workshop", "Sawdust, no loose screws to be thrown away.", "dust_up", "17.75", BEN),
    ("Houseboat", "Bring shoes with soft soles.", "spot_clean", "32.50", DORA),
]

# Cleaning, bidder, message and status.
OFFERS = [
    ("My house", BEN, "I could come on Friday.", "pending"),
    ("My house", CLEO, "Dogs like me.", "pending"),
    ("Studio under the roof", BEN, "Six floors are my sport.", "rejected"),
    ("Studio under the roof", CLEO, None, "accepted"),
    ("Reading room of the library", CLEO, "In slippers.", "pending"),
    ("Kitchen after a wedding", CLEO, "I have a snow shovel.", "completed"),
    ("Grandmother's flat", BEN, "I like tea.", "completed"),
    ("Houseboat", BEN, None, "cancelled"),
    ("Houseboat", CLEO, "I have felt soles.", "pending"),
]

# Cleaning, cleaner, owner, rating, headline and comment.
EVALUATIONS = [
    ("Kitchen after a wedding", CLEO, ANNA, 5, "Spotless", "Even the chandelier."),
    ("Grandmother's flat", BEN, DORA, 4, "Kind", "Stayed for a second pot of tea."),
]

PLACES = ("House", "Flat", "Studio", "Office", "Loft", "Cottage", "Shop")
STREETS = (
    *("Rose Street", "Mill Lane", "Harbour Road", "Station Square", "Lime Walk", "Bridge Street"),
    *("Chapel Hill", "Orchard Way", "Market Place", "Canal Side", "Abbey Road"),
)
NOTES = ("Keys at the neighbour's.", None, "Two cats.", "Windows too, please.", "Mind the piano.")
TYPES = ("spot_clean", "dust_up", "full_clean")
CHUNK = 10_000

ADD_USER = text("""
    INSERT INTO users (username, email, password_hash)
    VALUES (:name, :name || '@phresh.example', :password_hash)
    ON CONFLICT DO NOTHING RETURNING id
""")
ADD_PROFILE = text("INSERT INTO profiles VALUES (:user_id, :full_name, NULL, :bio)")
ADD_JOB = text("""
    INSERT INTO cleanings (name, description, cleaning_type, price, owner_id)
    SELECT :name, :description, :kind, :price, (SELECT id FROM users WHERE username = :owner)
    RETURNING id
""")
ADD_OFFER = text("""
    INSERT INTO offers (cleaning_id, user_id, message, status)
    SELECT :job, id, :message, :status FROM users WHERE username = :bidder
""")
ADD_EVALUATION = text("""
    INSERT INTO evaluations
        (cleaning_id, cleaner_id, owner_id, overall_rating, headline, comment)
    SELECT :job, cleaner.id, owner.id, :rating, :headline, :comment
    FROM users cleaner, users owner WHERE cleaner.username = :cleaner AND owner.username = :owner
""")

ADD_MANY_USERS = text("""
    WITH made AS (
        INSERT INTO users (username, email, password_hash)
        SELECT 'demo-' || n, 'demo-' || n || '@phresh.example', '!'
        FROM generate_series(1, :count) n ON CONFLICT DO NOTHING RETURNING id
    )
    INSERT INTO profiles (user_id, full_name) SELECT id, 'Number ' || id FROM made
""")
MANY_USERS = text("SELECT id FROM users WHERE username ~ '^demo-[0-9]+$' ORDER BY id LIMIT :count")
# On every fifth cleaning that has an owner, by the next two users.
ADD_MANY_OFFERS = text("""
    WITH people AS (SELECT id, ordinality AS n FROM unnest(:people) WITH ORDINALITY id),
    jobs AS (
        SELECT cleanings.id, n, (ARRAY['pending', 'accepted', 'completed', 'cancelled'])
            [cleanings.id / 10 % 4 + 1] AS status
        FROM cleanings JOIN people ON people.id = owner_id
        WHERE cleanings.id > :last AND cleanings.id % 5 = 0
    )
    INSERT INTO offers (cleaning_id, user_id, message, status)
    SELECT jobs.id, people.id, 'I could come on Friday.', CASE
        WHEN bid = 1 THEN status WHEN status IN ('accepted', 'completed') THEN 'rejected'
        ELSE 'pending' END
    FROM jobs CROSS JOIN generate_series(1, 2) bid
    JOIN people ON people.n = (jobs.n - 1 + bid) % cardinality(:people) + 1
""")
ADD_MANY_EVALUATIONS = text("""
    INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating, headline)
    SELECT cleaning_id, user_id, owner_id, cleaning_id % 5 + 1, 'As agreed'
    FROM offers JOIN cleanings ON cleanings.id = cleaning_id
    WHERE cleaning_id > :last AND offers.status = 'completed'
""")
TABLES = ("users", "profiles", "cleanings", "offers", "evaluations")


def add_samples() -> str | None:
    """Add a small marketplace and return its users' password; None if the users existed already."""
    password = secrets.token_urlsafe(9)
    password_hash = passwords().hash(password)
    with db.engine.begin() as connection:
        new = None
        for name, (full_name, bio) in PEOPLE.items():
            values = {"name": name, "password_hash": password_hash}
            for (user_id,) in connection.execute(ADD_USER, values):
                profile = {"user_id": user_id, "full_name": full_name, "bio": bio}
                connection.execute(ADD_PROFILE, profile)
                new = password
        jobs = {}
        for name, description, kind, price, owner in JOBS:
            job = {"name": name, "description": description, "kind": kind}
            jobs[name] = connection.scalar(ADD_JOB, {**job, "price": price, "owner": owner})
        for name, bidder, message, status in OFFERS:
            offer = {"job": jobs[name], "bidder": bidder, "message": message, "status": status}
            connection.execute(ADD_OFFER, offer)
        for name, cleaner, owner, rating, headline, comment in EVALUATIONS:
            evaluation = {"job": jobs[name], "cleaner": cleaner, "owner": owner, "rating": rating}
            connection.execute(
                ADD_EVALUATION, {**evaluation, "headline": headline, "comment": comment}
            )
    return new


def add_many(count: int, people: int | None = None) -> None:
    """Add many cleanings, with users, offers and evaluations in proportion.

    :param count: the number of cleanings
    :param people: the number of users; by default a hundredth of that
    """
    with db.engine.begin() as connection:
        people = people or 10 + count // 100
        connection.execute(ADD_MANY_USERS, {"count": people})
        owners = list(connection.scalars(MANY_USERS, {"count": people}))
        last = connection.scalar(text("SELECT coalesce(max(id), 0) FROM cleanings"))
        _copy_cleanings(connection, count, owners)
        connection.execute(ADD_MANY_OFFERS, {"people": owners, "last": last})
        connection.execute(ADD_MANY_EVALUATIONS, {"last": last})
    with db.engine.begin() as connection:
        # Otherwise the planner guesses until autovacuum runs.
        connection.exec_driver_sql(f"ANALYZE {', '.join(TABLES)}")


def _copy_cleanings(connection: Connection, count: int, owners: list[int]) -> None:
    cursor = connection.connection.cursor()
    lines = _copy_lines(count, owners)
    bar = click.progressbar(length=count, label="Adding cleanings")
    with without_wait_callback(), bar:
        while chunk := list(islice(lines, CHUNK)):
            cursor.copy_expert(
                "COPY cleanings (name, description, cleaning_type, price, owner_id, created_at, "
                "updated_at) FROM STDIN",
                io.StringIO("".join(chunk)),
            )
            bar.update(len(chunk))


def _copy_lines(count: int, owners: list[int]) -> Iterator[str]:
    r"""Yield lines in COPY's text format; no sample has a tab, a line break or a backslash."""
    last = datetime.now(UTC) - timedelta(days=1)
    for i in range(count):
        place, street = PLACES[i % len(PLACES)], STREETS[i % len(STREETS)]
        note = NOTES[i % len(NOTES)] if i % 50_000 != 25_000 else "A chandelier of 1912."
        owner = None if i % 10 == 9 else owners[i % len(owners)]
        created_at = last - timedelta(seconds=count - i)
        updated_at = created_at if i % 4 else created_at + timedelta(milliseconds=1)
        values = (
            *(f"{place} at {i + 1} {street}", note, TYPES[i % len(TYPES)]),
            *(f"{10 + i * 7 % 90}.{i * 13 % 100:02}", owner, created_at, updated_at),
        )
        yield "\t".join(r"\N" if value is None else str(value) for value in values) + "\n"
