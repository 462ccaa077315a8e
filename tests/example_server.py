"""A server for tests that can cut a connection, and remembers what it was asked."""

import contextlib
import http.server
import itertools
import threading


class Server(http.server.ThreadingHTTPServer):
    """One mirror; keeps the Range header and the bytes sent for every request."""

    def __init__(self, content, *, ranges=True, cuts=(), length=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.length = content, ranges, length
        # The first answers end after so many bytes.
        self.cuts = itertools.chain(cuts, itertools.repeat(None))
        self.seen = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = self.server.content[start:]
        if start and not body:
            self.server.seen.append((asked, 0))
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(self.server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        if self.server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: next(self.server.cuts)]
        self.server.seen.append((asked, len(sent)))
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(*args, **kwargs):
    """Runs a Server; the environment must say that there is no proxy for it."""
    with Server(*args, **kwargs) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server
        finally:
            server.shutdown()
