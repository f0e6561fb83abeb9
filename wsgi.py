"""The app that gunicorn and the flask command find."""

from phresh import create_app

app = create_app()
