"""Normalize what is searched.

Texts come in normalization form C now, and so do the words of a search: a row that was written
before, in another form, would never be found. Only such rows are changed, and locked until the end;
their ``updated_at`` stays. One that would be longer than its column allows is left as it is.
"""

from alembic import op

revision = "4e7b1d92c0a6"
down_revision = "b6e04f7d1c92"
branch_labels = None
depends_on = None

NORMALIZE = """
    UPDATE cleanings
    SET name = normalize(name, NFC), description = normalize(description, NFC)
    WHERE (name IS NOT NFC NORMALIZED OR description IS NOT NFC NORMALIZED)
    AND char_length(normalize(name, NFC)) <= 200
    AND coalesce(char_length(normalize(description, NFC)), 0) <= 10000
"""


def upgrade():
    op.execute(NORMALIZE)


def downgrade():
    """Nothing: which form the texts had is not known any more."""
