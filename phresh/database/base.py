"""What models build on: the declarative base, the extensions, and the session of a view."""

from typing import Any

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from phresh.database.session import ViewSession, scope


class Base(DeclarativeBase):
    """What every model inherits; each constraint gets a name by one rule."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


db: Any = SQLAlchemy(
    model_class=Base,
    disable_autonaming=True,
    session_options={"class_": ViewSession, "scopefunc": scope},
)
migrate = Migrate()
