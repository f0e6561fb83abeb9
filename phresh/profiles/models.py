"""The table of profiles."""

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base

FULL_NAME_MAX = 200
PHONE_NUMBER_MAX = 50
BIO_MAX = 10_000
IMAGE_MAX = 2_000


class Profile(Base):
    """What users publish about themselves. Each CHECK mirrors a rule of the schemas."""

    __tablename__ = "profiles"
    __table_args__ = (
        CheckConstraint(f"char_length(full_name) <= {FULL_NAME_MAX}", name="full_name_length"),
        CheckConstraint(
            f"char_length(phone_number) <= {PHONE_NUMBER_MAX}", name="phone_number_length"
        ),
        CheckConstraint(f"char_length(bio) <= {BIO_MAX}", name="bio_length"),
        CheckConstraint(f"char_length(image) <= {IMAGE_MAX}", name="image_length"),
        CheckConstraint("image ~* '^https?://'", name="image"),
    )

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    full_name: Mapped[str | None] = mapped_column(Text)
    phone_number: Mapped[str | None] = mapped_column(Text)
    bio: Mapped[str | None] = mapped_column(Text)
    image: Mapped[str | None] = mapped_column(Text)
