"""The URLs that responses name, as clients use them."""

from urllib.parse import urlsplit

from flask import current_app, request


def url_of(path: str) -> str:
    """Return the URL of a path: absolute with ``PUBLIC_URL``, else a reference on the same host.

    It has the path under which a proxy mounts the API, if it does.

    :param path: of the API, like ``/api/cleanings/``, or as ``flask.url_for`` returns it, which has
        the path of the mount already
    """
    base = current_app.config["PUBLIC_URL"]
    if base is None:
        base = request.environ["SCRIPT_NAME"] and request.script_root  # mostly there is none
    mount = urlsplit(base).path if base else ""
    # Where the API is mounted at /api, either would begin with it.
    if mount and path.startswith(f"{mount}/") and not _is_routed(path):
        path = path.removeprefix(mount)
    return f"{base}{path}"


def _is_routed(path: str) -> bool:
    """Return whether a path, without its query, is one of the API."""
    return bool(current_app.url_map.bind("").allowed_methods(path.partition("?")[0]))
