"""Turns: few requests at once do what takes much of the processor; the others wait, or get 503."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask_smorest import abort

from phresh.database.deadlines import paused_deadline


class Turns:
    """Lets few callers of a worker at once do something.

    :param at_once: how many
    :param seconds: how long to wait for a turn
    :param message: of the response to a request that has none in time
    """

    def __init__(self, at_once: int, seconds: float, message: str) -> None:
        # By the name of its module: gevent replaces it when a worker of it starts.
        self._free = threading.BoundedSemaphore(at_once)
        self._seconds = seconds
        self._message = message

    @contextmanager
    def turn(self, *, waits: bool = True) -> Iterator[None]:
        """Wait for a turn and have it inside; respond 503 when there is none in time.

        :param waits: whether to wait at all
        """
        with paused_deadline():
            has_turn = self._free.acquire(timeout=self._seconds if waits else 0)
        if not has_turn:
            abort(503, message=self._message)
        try:
            yield
        finally:
            self._free.release()
