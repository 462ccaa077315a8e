"""A bucket for tests: answers as Google Cloud Storage does, as far as we ask.

Objects appear whole or not at all and have generations; there are no folders, only
names that are listed as if there were; preconditions are kept.
"""

import contextlib
import http.server
import itertools
import json
import re
import threading
import urllib.parse

_PATH = re.compile(
    r"(?:/upload|/download)?/storage/v1/b/(?P<bucket>[^/]+)"
    r"(?:/o(?:/(?P<name>[^/]+)(?:/(?:moveTo|rewriteTo/b/[^/]+)/o/(?P<to>[^/]+))?)?)?"
)


class Server(http.server.ThreadingHTTPServer):
    """Buckets by name, each a dict of (generation, content) by the objects' names.

    Every request is kept in `seen`, as "METHOD path"; all are answered by the status
    `refusal`, if that is not 0.
    """

    daemon_threads = True

    def __init__(self, *buckets):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets = {name: {} for name in buckets}
        self.seen, self.refusal, self.uploads = [], 0, {}
        self.lock, self.numbers = threading.Lock(), itertools.count(1)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        # Makes gcsfs, TensorStore and Google's own library come here, unknown.
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            # gcsfs would ask Google, by gRPC, what kind of bucket it is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "no_proxy": "127.0.0.1",
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keeps connections.

    def answer(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = _PATH.fullmatch(url.path).groupdict("")
        bucket, name, to = (urllib.parse.unquote(part) for part in parts.values())
        with self.server.lock:
            self.server.seen.append(f"{self.command} {url.path}")
            objects = self.server.buckets.get(bucket)
            if self.server.refusal:
                self.send(self.server.refusal)
            elif objects is None:
                self.send(404)
            elif url.path.startswith("/upload"):
                self.upload(objects, query, body)
            elif not name and url.path.endswith("/o"):
                self.list(objects, query)
            elif not name:
                self.send(200, {"name": bucket})
            elif name not in objects:
                self.send(404)
            elif to:
                objects[to] = next(self.server.numbers), objects[name][1]
                if "/moveTo/" in url.path:
                    del objects[name]
                self.send(200, {"done": True, "resource": resource(to, objects)})
            else:
                self.object(objects, name, query)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def object(self, objects, name, query):
        generation, content = objects[name]
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            self.send(412)
        elif query.get("ifGenerationNotMatch") == str(generation):
            self.send(304)
        elif self.command == "DELETE":
            del objects[name]
            self.send(204)
        elif query.get("alt") != "media":
            self.send(200, resource(name, objects))
        else:
            headers = {"x-goog-generation": generation}
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
            if asked:
                first, end = int(asked[1]), int(asked[2] or len(content)) + 1
                end = min(end, len(content))
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
                content = content[first:end]
            self.send((206 if content else 416) if asked else 200, content, headers)

    def list(self, objects, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
        names, folders = [], set()
        for name in sorted(n for n in objects if n.startswith(prefix)):
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            elif first <= name < end:
                names.append(name)
        items = [resource(name, objects) for name in names]
        self.send(200, {"items": items, "prefixes": sorted(folders)})

    def upload(self, objects, query, body):
        kind, name, number = query["uploadType"], query.get("name"), "upload_id"
        if kind == "resumable" and number not in query:
            query = {"name": name or json.loads(body)["name"]} | query
            query[number] = str(next(self.server.numbers))
            self.server.uploads[query[number]] = b""
            path = f"{self.path.split('?')[0]}?{urllib.parse.urlencode(query)}"
            return self.send(200, b"", {"Location": self.server.url + path})
        if kind == "resumable":
            body = self.server.uploads[query[number]] + body
            self.server.uploads[query[number]] = body
            if not self.headers["Content-Range"].endswith(f"/{len(body)}"):
                return self.send(308, b"", {"Range": f"bytes=0-{len(body) - 1}"})
        elif kind == "multipart":
            mark = self.headers.get_boundary().encode()
            _, meta, body, _ = body.split(b"--" + mark)
            name = name or json.loads(meta[meta.index(b"{") :])["name"]
            body = re.split(rb"\r?\n\r?\n", body, maxsplit=1)[1]
            body = body.removesuffix(b"\n").removesuffix(b"\r")
        generation = objects[name][0] if name in objects else 0
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            return self.send(412)
        objects[name] = next(self.server.numbers), body
        self.send(200, resource(name, objects))

    def send(self, status, content=b"", headers=None):
        if status >= 400:
            content = {"error": {"code": status, "message": "refused by the test"}}
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": len(content)} | (headers or {})).items():
            self.send_header(key, str(value))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # A client may be killed.
            self.wfile.write(content)

    def log_message(self, *args):
        pass


def resource(name, objects):
    """What is told of an object."""
    generation, content = objects[name]
    return {
        "kind": "storage#object",
        "name": name,
        "generation": str(generation),
        "metageneration": "1",
        "size": str(len(content)),
        "updated": "2026-01-01T00:00:00.000Z",
    }


@contextlib.contextmanager
def serving(*buckets):
    """Runs a Server with these buckets."""
    with Server(*buckets) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server
        finally:
            server.shutdown()
