"""Sample cleanings, readable and always the same."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice

import click

from phresh.db import db

Sample = tuple[str, str | None, str, str]

SAMPLES: list[Sample] = [
    ("My house", "Two floors, and the dog helps.", "full_clean", "29.99"),
    ("Someone else's house", None, "spot_clean", "19.99"),
    ("Flat above the bakery", "Flour gets everywhere.", "dust_up", "15.50"),
    ("Garden shed", "Spiders have to be carried out, not killed.", "spot_clean", "12.00"),
    ("Studio under the roof", "Sixth floor, no lift.", "full_clean", "24.00"),
    ("Reading room of the library", "Quietly, please.", "dust_up", "18.25"),
    ("Kitchen after a wedding", "Ninety guests and a chocolate fountain.", "full_clean", "45.00"),
    ("Grandmother's flat", "She makes tea.", "spot_clean", "21.00"),
    ("Workshop", "Sawdust, no loose screws to be thrown away.", "dust_up", "17.75"),
    ("Houseboat", "Bring shoes with soft soles.", "spot_clean", "32.50"),
]

PLACES = ("House", "Flat", "Studio", "Office", "Loft", "Cottage", "Shop")
STREETS = (
    *("Rose Street", "Mill Lane", "Harbour Road", "Station Square", "Lime Walk", "Bridge Street"),
    *("Chapel Hill", "Orchard Way", "Market Place", "Canal Side", "Abbey Road"),
)
NOTES = ("Keys at the neighbour's.", None, "Two cats.", "Windows too, please.", "Mind the piano.")
TYPES = ("spot_clean", "dust_up", "full_clean")
CHUNK = 10_000


def add_samples(count: int | None = None) -> int:
    """Add sample cleanings, a handful or that many, and give how many."""
    rows: Iterable[Sample] = SAMPLES if count is None else _many(count)
    total = len(SAMPLES) if count is None else count
    with db.engine.begin() as connection:
        cursor = connection.connection.cursor()
        with click.progressbar(length=total, label="Adding cleanings") as bar:
            remaining = iter(rows)
            while chunk := list(islice(remaining, CHUNK)):
                cursor.copy_expert(
                    "COPY cleanings (name, description, cleaning_type, price) FROM STDIN",
                    io.StringIO("".join(map(_copy_line, chunk))),
                )
                bar.update(len(chunk))
    with db.engine.begin() as connection:
        # Else the planner guesses until autovacuum comes by.
        connection.exec_driver_sql("ANALYZE cleanings")
    return total


def _many(count: int) -> Iterator[Sample]:
    for i in range(count):
        place, street = PLACES[i % len(PLACES)], STREETS[i % len(STREETS)]
        price = f"{10 + i * 7 % 90}.{i * 13 % 100:02}"
        note = NOTES[i % len(NOTES)] if i % 50_000 != 25_000 else "A chandelier of 1912."
        yield f"{place} at {i + 1} {street}", note, TYPES[i % len(TYPES)], price


def _copy_line(sample: Sample) -> str:
    r"""Give a line in COPY's text format; no sample has a tab, a line break or a backslash."""
    return "\t".join(r"\N" if value is None else value for value in sample) + "\n"
