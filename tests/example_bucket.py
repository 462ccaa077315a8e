"""A bucket for tests: answers as Google Cloud Storage does, as far as we ask.

Objects appear whole or not at all and have generations; there are no folders, only
names that are listed as if there were; preconditions are kept.
"""

import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse

_PATH = re.compile(
    r"(?:/upload|/download)?/storage/v1/b/(?P<bucket>[^/]+)"
    r"(?:/o(?:/(?P<name>[^/]+)(?:/rewriteTo/b/[^/]+/o/(?P<to>[^/]+))?)?)?"
)


class Server(http.server.ThreadingHTTPServer):
    """Buckets of (generation, content) by name; answers with `refusal` if not 0."""

    daemon_threads = True

    def __init__(self, *buckets):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets = {name: {} for name in buckets}
        self.refusal, self.uploads = 0, {}
        self.lock, self.numbers = threading.Lock(), itertools.count(1)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        # Makes gcsfs, TensorStore and Google's own library come here.
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            # gcsfs would ask Google, by gRPC, what kind of bucket it is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "no_proxy": "127.0.0.1",
        }

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, *args):
        if not isinstance(sys.exception(), ConnectionError):  # A client was killed.
            super().handle_error(*args)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keeps connections.

    def answer(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = _PATH.fullmatch(url.path).groupdict("")
        bucket, name, to = (urllib.parse.unquote(part) for part in parts.values())
        with self.server.lock:
            objects = self.server.buckets.get(bucket)
            if self.server.refusal or objects is None:
                self.send(self.server.refusal or 404)
            elif url.path.startswith("/upload"):
                self.upload(objects, query, body)
            elif not name:
                self.list(objects, query)
            elif name not in objects:
                self.send(404)
            elif to:
                objects[to] = next(self.server.numbers), objects[name][1]
                self.send(200, {"done": True, "resource": resource(to, objects)})
            else:
                self.object(objects, name, query)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def object(self, objects, name, query):
        generation, content = objects[name]
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            self.send(412)
        elif self.command == "DELETE":
            del objects[name]
            self.send(204)
        elif query.get("alt") != "media":
            self.send(200, resource(name, objects))
        else:
            headers = {"x-goog-generation": generation}
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
            if asked:
                first, last = int(asked[1]), int(asked[2] or len(content) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content = content[first : last + 1]
            self.send((206 if content else 416) if asked else 200, content, headers)

    def list(self, objects, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], set()
        for name in sorted(n for n in objects if n.startswith(prefix)):
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(resource(name, objects))
        self.send(200, {"items": items, "prefixes": sorted(folders)})

    def upload(self, objects, query, body):
        name, part_of = query.get("name"), query.get("upload_id")
        if query["uploadType"] == "resumable" and not part_of:
            part_of = str(next(self.server.numbers))
            self.server.uploads[part_of] = b""
            url = f"{self.server.url}{self.path}&upload_id={part_of}"
            return self.send(200, headers={"Location": url})
        if part_of:
            body = self.server.uploads[part_of] = self.server.uploads[part_of] + body
            if not self.headers["Content-Range"].endswith(f"/{len(body)}"):
                return self.send(308, headers={"Range": f"bytes=0-{len(body) - 1}"})
        elif query["uploadType"] == "multipart":
            mark = self.headers.get_boundary().encode()
            _, meta, body, _ = body.split(b"--" + mark)
            name = name or json.loads(meta[meta.index(b"{") :])["name"]
            body = body.split(b"\n\n", 1)[1].removesuffix(b"\n")
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
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def resource(name, objects):
    generation, content = objects[name]
    return {"name": name, "generation": str(generation), "size": str(len(content))}
