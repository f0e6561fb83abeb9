"""Accounts and jobs in every state, for who sends requests that are made by chance."""

from argon2 import PasswordHasher

PASSWORD = "correct horse battery"
EACH = 2_000

# Of each operation on offers: whose job it needs, whose offer is on it, and how that stands.
JOBS = {
    "create_offer": (2, None, None),
    "accept_offer": (1, 2, "pending"),
    "cancel_offer": (2, 1, "accepted"),
    "delete_offer": (2, 1, "pending"),
    "create_evaluation": (1, 2, "accepted"),
    "get_evaluation": (1, 2, "completed"),
    "list_offers": (1, 2, "pending"),
    "get_offer": (1, 2, "pending"),
}


def job_of(operation: str, number: int) -> int:
    """The id of a job that an operation needs, another one for each number."""
    return list(JOBS).index(operation) * EACH + number % EACH + 1


def fill() -> list[str]:
    """The statements that fill empty tables: users, the first two of whom have to do with jobs."""
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    statements = [
        f"""
        INSERT INTO users (username, email, password_hash)
        SELECT 'user-' || n, 'user-' || n || '@phresh.example', '{password_hash}'
        FROM generate_series(1, 9999) n
        """,
        "INSERT INTO profiles (user_id) SELECT id FROM users",
        """
        INSERT INTO tokens (hash, user_id, expires_at)
        SELECT sha256(convert_to('token-' || id, 'UTF8')), id, 'infinity' FROM users
        """,
    ]
    for owner, bidder, status in JOBS.values():
        statements.append(f"""
            INSERT INTO cleanings (name, price, owner_id)
            SELECT 'Job', 20, {owner} FROM generate_series(1, {EACH})
        """)
        if bidder is not None:
            statements.append(f"""
                INSERT INTO offers (cleaning_id, user_id, status)
                SELECT id, {bidder}, '{status}' FROM cleanings ORDER BY id DESC LIMIT {EACH}
            """)
    statements.append("""
        INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating)
        SELECT cleaning_id, 2, 1, 5 FROM offers WHERE status = 'completed'
    """)
    return statements
