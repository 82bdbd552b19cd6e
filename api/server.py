"""How gunicorn's threads are lent: only to requests whose head is here whole, and never to a client that does not read.

gunicorn's own gthread gives a thread to whoever sent one byte, and waits without end for the rest: a dozen half heads
stop it. Here the loop collects heads without waiting, and a thread starts when it has something to do. HTTP/1.1 only.
"""

import errno
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future
from enum import Enum
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from api.settings import ApiSettings

MAX_HEAD: Final = 64 * 1024
MAX_DRAIN: Final = 256 * 1024
LINGER_S: Final = 2.0
_READ: Final = 8192
_END: Final = b"\r\n\r\n"


class Head(Enum):
    """How far the head of the next request is."""

    PART = "more is to come"
    WHOLE = "a thread can begin"
    NEVER = "the client hung up, or sends no end of it"


class Connection(TConn):  # type: ignore[misc]
    """A client's connection. `head` is what arrived of the next request before a thread has it."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, send_idle_s: float) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = bytearray()
        self.drained = 0
        # By the kernel, which counts from the last byte that went out: an answer of any size may take its time.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_idle_s))

    def begin_head(self) -> None:
        """From here on nothing waits; what was read ahead of the last request's end belongs to the next one."""
        self.sock.setblocking(False)
        if self.parser is not None:
            self.head += self.parser.unreader.take_buffered()

    def read_head(self) -> Head:
        """Take what has arrived; never waits."""
        if _END not in self.head:
            try:
                data = self.sock.recv(_READ)
            except BlockingIOError:
                return Head.PART
            except OSError:
                return Head.NEVER
            if not data:
                return Head.NEVER
            self.head += data
        if self.head[:1] in b"\r\n":  # RFC 9112, 2.2: empty lines before a request are no part of it
            self.head = self.head.lstrip(b"\r\n")
        if _END in self.head:
            return Head.WHOLE
        return Head.PART if len(self.head) <= MAX_HEAD else Head.NEVER

    def end_head(self) -> None:
        """Give what was read to gunicorn's parser."""
        self.init()
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()

    def end_answer(self) -> None:
        """Say that nothing more comes. OSError if the client is gone."""
        self.sock.setblocking(False)
        self.sock.shutdown(socket.SHUT_WR)

    def drain(self) -> bool:
        """Throw away what the client still sends, without waiting. False at its end, or when it is too much."""
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.drained += len(data)
        return bool(data) and self.drained <= MAX_DRAIN


class HeadFirstWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, for `--worker-class api.server.HeadFirstWorker`."""

    def init_process(self) -> None:
        settings = ApiSettings()
        self.head_total_s = settings.head_total_s
        self.send_idle_s = settings.send_idle_s
        self.ending: deque[Connection] = deque()
        super().init_process()

    def accept(self, listener: Any) -> None:
        """A new connection, if there is one; another process may have taken it."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)  # it goes on waiting in the backlog, until a connection ends
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, sock, client, listener.getsockname(), self.send_idle_s))

    def enqueue_req(self, conn: Connection) -> None:
        """A request may come on this connection: at once to a thread if its head is here, else to the poller."""
        conn.begin_head()
        head = conn.read_head()
        if head is not Head.PART:
            self._leave_poller(conn, head)
            return
        # gunicorn's own list of connections that it closes when their time is up.
        conn.timeout = time.monotonic() + self.head_total_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: Connection, client: Any) -> None:
        """More of a head arrived."""
        head = conn.read_head()
        if head is not Head.PART:
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            self._leave_poller(conn, head)

    def _leave_poller(self, conn: Connection, head: Head) -> None:
        if head is Head.WHOLE:
            conn.end_head()
            super().enqueue_req(conn)
        else:
            self._drop(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Run the application. False if the connection is to be closed."""
        try:
            return bool(super().handle_request(req, conn))
        except (TimeoutError, BlockingIOError):
            self.log.info("%s %s: the client stopped reading or sending, given up", req.method, req.path)
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Say that a request failed, never in which words: gunicorn's quote lines that hold keys, and whole URLs."""
        super().handle_error(None, client, addr, _wordless(exc) if isinstance(exc, ParseException) else exc)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Whether another request may come. A body that nobody read and that is not here is not waited for."""
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + 0.1))

    def finish_request(self, conn: Connection, done: Future[bool]) -> None:
        """Keep the connection, or end it as RFC 9112, 9.6 asks: closed too early, it would cut the answer short.

        gunicorn would wait here for the client, and serve nobody meanwhile.
        """
        if done.exception() is None and done.result():
            super().finish_request(conn, done)
            return
        try:
            conn.end_answer()
        except OSError:
            self._drop(conn)
            return
        conn.timeout = time.monotonic() + LINGER_S
        self.ending.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_ending_socket_readable, conn))

    def _on_ending_socket_readable(self, conn: Connection, client: Any) -> None:
        if not conn.drain():
            self.poller.unregister(client)
            self.ending.remove(conn)
            self._drop(conn)

    def murder_pending(self) -> None:
        """Close the connections whose time is up; called about once a second."""
        super().murder_pending()
        while self.ending and self.ending[0].timeout <= time.monotonic():
            conn = self.ending.popleft()
            self.poller.unregister(conn.sock)
            self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()


def _timeval(seconds: float) -> bytes:
    """A struct timeval of the platform's longs."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


def _wordless(refused: ParseException) -> ParseException:
    """The same refusal with nothing of the request in it."""
    kind = type(refused)
    return type(kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: kind.__name__})()
