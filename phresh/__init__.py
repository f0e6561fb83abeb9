"""Phresh: the REST API of a marketplace for cleaning jobs."""

from collections.abc import Mapping
from typing import Any

from flask import Flask

from phresh import api, auth, cli, db, docs, logs
from phresh.cleanings.views import blp as cleanings_blp
from phresh.config import read_settings
from phresh.evaluations.views import blp as evaluations_blp
from phresh.feed.views import blp as feed_blp
from phresh.health.views import blp as health_blp
from phresh.offers.views import blp as offers_blp
from phresh.profiles.views import blp as profiles_blp
from phresh.users.views import blp as users_blp

__version__ = "1.0.0"

RESOURCES = (
    *(health_blp, users_blp, profiles_blp, cleanings_blp, offers_blp),
    *(evaluations_blp, feed_blp),
)


def create_app(settings: Mapping[str, Any] | None = None) -> Flask:
    """Make the app.

    :param settings: what replaces the environment and ``.env`` (phresh/config.py lists them)
    :raises ConfigError: when a setting cannot be used
    """
    app = api.App(__name__)
    app.config.update(read_settings(settings), API_VERSION=__version__)
    logs.init_app(app)
    db.init_app(app)
    auth.init_app(app)
    smorest = api.init_app(app)
    for resource in RESOURCES:
        smorest.register_blueprint(resource)
    app.register_blueprint(docs.blp)
    cli.init_app(app)
    return app
