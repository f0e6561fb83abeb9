"""Phresh: the REST API of a marketplace for cleaning jobs."""

from collections.abc import Mapping
from typing import Any

from flask import Flask

from phresh.accounts import pages, passwords
from phresh.accounts.views import blp as users_blp
from phresh.admin.views import blp as admin_blp
from phresh.cleanings import services as cleanings_services
from phresh.cleanings.views import blp as cleanings_blp
from phresh.cli import commands
from phresh.config import read_settings
from phresh.database import engine
from phresh.deletion.views import blp as deletion_blp
from phresh.evaluations.views import blp as evaluations_blp
from phresh.export.views import blp as export_blp
from phresh.feed.views import blp as feed_blp
from phresh.mail import sending
from phresh.offers.views import blp as offers_blp
from phresh.operations.health import blp as health_blp
from phresh.profiles.views import blp as profiles_blp
from phresh.serving import logs
from phresh.sessions.views import blp as sessions_blp
from phresh.two_factor.views import blp as two_factor_blp
from phresh.web import app as web_app
from phresh.web import converters, cors, docs, openapi, problems
from phresh.web import json as web_json

__version__ = "1.0.0"

# In the order in which the document and its pages list them: what a reader needs first is first.
RESOURCES = [
    users_blp,
    sessions_blp,
    two_factor_blp,
    export_blp,
    deletion_blp,
    cleanings_blp,
    offers_blp,
    evaluations_blp,
    profiles_blp,
    feed_blp,
    admin_blp,
    health_blp,
]


def create_app(settings: Mapping[str, Any] | None = None) -> Flask:
    """Create the app and return it.

    :param settings: what replaces the environment and ``.env`` (phresh/config.py lists them)
    :raises ConfigError: when a setting cannot be used
    """
    app = web_app.App(__name__)
    app.config.update(read_settings(settings), API_VERSION=__version__)
    web_app.init_app(app)
    web_json.init_app()
    logs.init_app(app)
    engine.init_app(app)
    passwords.init_app(app)
    sending.init_app(app)
    cleanings_services.init_app(app)
    converters.init_app(app)
    problems.init_app(app)
    cors.init_app(app)
    api = openapi.init_app(app)
    for resource in RESOURCES:
        api.register_blueprint(resource)
    app.register_blueprint(docs.blp)
    app.register_blueprint(pages.blp)
    commands.init_app(app)
    return app
