"""The examples of responses in the OpenAPI document: each is a response that was seen.

``tests/contract/test_examples.py`` compares what is seen here with ``phresh/web/examples.json``.
The requests are those of ``tests/<feature>/routes.py``, and for each other status that the document
names, one that gets it. What differs in each run (ids, times, tokens) is replaced.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from phresh.web.converters import SessionConverter
from phresh.web.json import time_text
from phresh.web.openapi_examples import operations_of, resolved
from tests.tools.contract import body_of, contract_of, document_example
from tests.tools.features import NOBODY, OTHER, OWNER, WHO, Feature, Route, World, path_of, routes

HEADERS = ("Location",)
SECRET = "JBSWY3DPEHPK3PXP" * 2
# The values of members that differ in each run; of ids and times, which is greater is kept.
PLACEHOLDERS = {
    "access_token": "q3v0N8Yb1tJxkP6sZcR2uW9aLmE5hDfGoT7iVrXjKyB",
    "request_id": "f93b26d7a3c96d8f628b27eb7bcd1739",
    "secret": SECRET,
    "uri": f"otpauth://totp/Phresh:anna?secret={SECRET}&issuer=Phresh",
}
RECOVERY_CODE = re.compile(r'"[a-z2-7]{4}(?:-[a-z2-7]{4}){5}"')
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
FIRST_TIME = datetime(2026, 11, 27, 19, 4, 23, 491700, UTC)
ID = re.compile(r'("(?:\w+_)?id": )(\d+)')
SESSION_ID = re.compile(r'("id": )"[0-9a-f]{16}"')
WAIT = re.compile(r"in \d+ seconds")

UNKNOWN = 999_999_999
STALE = {"If-Match": '"1f3870be274f6c49b3e31a0c6728957f"'}
TOO_LARGE = {"data": b" " * 70_000, "content_type": "application/json"}
LONG_BOUNDARY = f"multipart/form-data; boundary={'x' * 71}"
# Requests that get a status, whatever the operation: the app, who sends them, arguments. The first
# that gets it is the example.
ATTEMPTS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "400": [
        ("", OWNER, {"data": '{"name": ', "content_type": "application/json"}),
        ("", OWNER, {"data": b"x", "content_type": LONG_BOUNDARY}),
    ],
    "401": [("", NOBODY, {}), ("", NOBODY, {"headers": {"Authorization": "Bearer expired"}})],
    "403": [("strict", OWNER, {})],
    "412": [("", OWNER, {"headers": STALE}), ("", OTHER, {"headers": STALE})],
    "413": [
        ("", OWNER, TOO_LARGE),
        ("", OWNER, {**TOO_LARGE, "content_type": "application/x-www-form-urlencoded"}),
    ],
    "415": [("", OWNER, {"data": "<xml/>", "content_type": "application/xml"})],
    "429": [("limited", OWNER, {}), ("limited", NOBODY, {})],
    "500": [("broken", OWNER, {})],
    "503": [("down", OWNER, {})],
}


@dataclass
class Recorder:
    """Sends requests and keeps an example of each response.

    :param apps: the app under ``""``; ``broken``, whose views fail; ``down``, without a database;
        ``limited``, which allows one write; ``strict``, which requires confirmed addresses
    :param reset: empties the tables, and returns what ``prepare`` makes rows with
    :param claim: a context in which another request is running with an idempotency key
    """

    apps: Mapping[str, Flask]
    reset: Callable[[], World]
    claim: Callable[[int, str], AbstractContextManager[str]]
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    worth: dict[tuple[str, str], tuple[bool, int]] = field(default_factory=dict)

    def record(self) -> dict[str, dict[str, Any]]:
        """Return the examples, by operation and status."""
        contract = contract_of(self.apps[""])
        found = []
        for feature, route in routes():
            operation = contract.operation(route.rule, route.method)
            if operation is not None and route.method != "HEAD":
                found.append((feature, route, operation))
        for feature, route, operation in found:
            for who in WHO:
                limit = {"query_string": {"limit": 1}} if has_limit(operation) else {}
                self._send(operation, feature, route, who, **limit)
        for feature, route, operation in found:
            for status in self._missing(operation):
                for attempt in self._attempts(operation, feature, route, status):
                    attempt()
                    if status in self.seen[operation["operationId"]]:
                        break
        items = contract.document["paths"].values()
        names = [each["operationId"] for item in items for each in operations_of(item)]
        return {name: dict(sorted(self.seen[name].items())) for name in names}

    def _missing(self, operation: dict[str, Any]) -> list[str]:
        """Return the statuses of which there is no example yet."""
        document = contract_of(self.apps[""]).document
        return [
            status
            for status, response in operation["responses"].items()
            if "content" in resolved(document, response)
            and status not in self.seen.setdefault(operation["operationId"], {})
        ]

    def _attempts(
        self, operation: dict[str, Any], feature: Feature, route: Route, status: str
    ) -> Iterator[Callable[[], None]]:
        """Yield what sends a request that may get a status."""
        same = (operation, feature, route)
        if int(status) in route.rejected:
            yield lambda: self._send(*same, OWNER, **route.rejected[int(status)])
        for app, who, sent in ATTEMPTS.get(status, []):
            yield lambda app=app, who=who, sent=sent: self._send(*same, who, app=app, **sent)
        if status == "404":
            for name in ("cleaning_id", "username", ""):
                yield lambda name=name: self._send(*same, OWNER, unknown=name)
            if "requestBody" in operation:
                sent = ID.sub(rf"\g<1>{UNKNOWN}", json.dumps(document_example(operation)))
                yield lambda: self._send(*same, OWNER, **json.loads(sent))
        if status == "422":
            sent = {"query_string": {"limit": 1000} if has_limit(operation) else {"colour": "red"}}
            if "requestBody" in operation:
                sent = invalid(document_example(operation))
            yield lambda: self._send(*same, OWNER, **sent)
        if status == "409":
            yield lambda: self._send(*same, OWNER, times=2)
            yield lambda: self._send(*same, OWNER, is_claimed=True)

    def _send(
        self,
        operation: dict[str, Any],
        feature: Feature,
        route: Route,
        who: str,
        app: str = "",
        unknown: str | None = None,
        times: int = 1,
        is_claimed: bool = False,
        **sent: Any,
    ) -> None:
        """Send a request, and keep the response if it is the best example so far.

        :param unknown: the variable of the path that names nothing; empty: the last one
        """
        world = self.reset()
        url = path_of(feature, route, world)
        if unknown is not None:
            url = without(route.rule, url, unknown)
        if not {"json", "data"} & sent.keys():
            sent = {**body_of(self.apps[""], route), **sent}
        client = self.apps[app].test_client()
        if (someone := {OWNER: world.owner, OTHER: world.other}.get(who)) is not None:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {someone.token}"
        if app == "limited":
            client.post("/api/cleanings/")
        running = self.claim(world.owner.id, url) if is_claimed else nullcontext()
        with running as key:
            headers = {**sent.pop("headers", {}), **({"Idempotency-Key": key} if key else {})}
            for _ in range(times):
                response = client.open(url, method=route.method, headers=headers, **sent)
        self._keep(operation, response, has_own_body=route.send is not None)

    def _keep(
        self, operation: dict[str, Any], response: TestResponse, *, has_own_body: bool
    ) -> None:
        status = str(response.status_code)
        if status not in operation["responses"] or not response.data:
            return
        example = {"body": normalized(json.loads(response.data))}
        headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
        if headers:
            example["headers"] = {name: without_ids(value) for name, value in headers.items()}
        found = self.seen.setdefault(operation["operationId"], {})
        # Of successes, that of the document's own body; of these, the one that shows most.
        worth = (not has_own_body, len(json.dumps(example)))
        best = self.worth.get((operation["operationId"], status))
        if best is None or (response.status_code < 300 and worth > best):
            found[status] = example
            self.worth[operation["operationId"], status] = worth


def has_limit(operation: dict[str, Any]) -> bool:
    """Return whether an operation lists as many items as the client says."""
    return parameter_example(operation, "limit") is not None


def parameter_example(operation: dict[str, Any], name: str) -> Any:
    """Return the example of a parameter, None if there is no such parameter."""
    found = [each for each in operation.get("parameters", []) if each.get("name") == name]
    return found[0]["example"] if found else None


def without(rule: str, url: str, name: str) -> str:
    """Return a URL in which a variable of its rule names nothing."""
    parts = url.split("/")
    found = [n for n, part in enumerate(rule.split("/")) if part.endswith(f"{name}>")]
    if found:
        parts[found[-1]] = str(UNKNOWN) if parts[found[-1]].isdigit() else "nobody"
    return "/".join(parts)


def invalid(sent: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a request with one wrong value: the first, or that of the price."""
    [(kind, body)] = sent.items()
    if not body:
        return {"json": []}
    if kind == "data":
        return {"data": {**body, "password": ""}}
    [(key, values)] = body.items()
    wrong = {"price": 29.999} if "price" in values else {name: [] for name in [*values][:1]}
    return {"json": {key: {**values, **wrong}}}


def normalized(body: Any) -> Any:
    """Return a body in which each value that differs in each run is replaced."""
    text = json.dumps(body)
    times = sorted({match[0] for match in TIME.finditer(text)})
    ids: dict[str, list[int]] = {}
    for name, number in sorted(set(ID.findall(text)), key=lambda found: int(found[1])):
        ids.setdefault(name, []).append(int(number))

    def time(match: re.Match[str]) -> str:
        made = FIRST_TIME + timedelta(minutes=times.index(match[0]))
        return time_text(made)

    def rank(match: re.Match[str]) -> str:
        return f"{match[1]}{ids[match[1]].index(int(match[2])) + 1}"

    text = ID.sub(rank, TIME.sub(time, text))
    text = WAIT.sub("in 90 seconds", text)
    text = RECOVERY_CODE.sub('"k3jd-7xqa-mz2e-p4ws-b6yh-t5nc"', text)
    text = SESSION_ID.sub(rf'\1"{SessionConverter.parameter["example"]}"', text)
    for name, value in PLACEHOLDERS.items():
        text = re.sub(rf'("{name}": )"[^"]*"', rf'\1"{value}"', text)
    return json.loads(text)


def without_ids(url: str) -> str:
    """Return a URL in a header, with other ids."""
    return re.sub(r"(?<=/)\d+(?=/)", "1", url)
