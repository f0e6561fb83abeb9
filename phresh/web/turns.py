"""Turns: few requests at once do what takes much of the processor; the others wait, or get 503."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask_smorest import abort

from phresh.database.clients import ClientGoneError, has_client_gone
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
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.Lock()  # of the queues

    @contextmanager
    def turn(self, *names: str, waits: bool = True) -> Iterator[None]:
        """Wait for a turn and have it inside; respond 503 when there is none in time.

        :param names: of the client's network and of the account, always in this order. Each has one
            turn at a time, so that nobody else waits behind the many requests of one of them
        :param waits: whether to wait at all
        """
        until = time.monotonic() + (self._seconds if waits else 0)
        with ExitStack() as held:
            for name in names:
                held.enter_context(self._alone(name, until))
            self._wait(self._free, until)
            held.callback(self._free.release)
            if has_client_gone():  # while it waited
                raise ClientGoneError("The client has gone.")
            yield

    @contextmanager
    def _alone(self, name: str, until: float) -> Iterator[None]:
        """Wait until no other caller has a turn by that name."""
        with self._lock:
            queue = self._queues.setdefault(name, _Queue())
            queue.members += 1
        try:
            self._wait(queue.free, until)
            try:
                yield
            finally:
                queue.free.release()
        finally:
            with self._lock:
                queue.members -= 1
                if not queue.members:
                    del self._queues[name]

    def _wait(self, turn: Any, until: float) -> None:
        with paused_deadline():
            has_turn = turn.acquire(timeout=max(0, until - time.monotonic()))
        if not has_turn:
            abort(503, message=self._message)


class _Queue:
    """Those of one name who have a turn or wait for it."""

    def __init__(self) -> None:
        self.free = threading.Semaphore()
        self.members = 0
