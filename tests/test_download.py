import contextlib
import hashlib
import socket
import threading

import example_server
import numpy as np
import pytest

from fcn_jax import download, errors

CONTENT = np.random.default_rng(0).bytes(300_000)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve():
    with contextlib.ExitStack() as servers:

        def start(content=CONTENT, **kwargs):
            return servers.enter_context(example_server.serving(content, **kwargs))

        yield start


@pytest.fixture
def dead_url():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/file.bin"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "file.bin"


def part(path):
    return path.with_name("file.bin.part")


def fetch(path, *servers, checksum=CHECKSUM, **kwargs):
    urls = [getattr(server, "url", server) for server in servers]
    download.fetch(urls, checksum=checksum, path=path, **kwargs)


def check_published(path):
    assert path.read_bytes() == CONTENT
    assert {file.name for file in path.parent.iterdir()} == {
        "file.bin",
        "file.bin.lock",
    }


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_whole(path, serve, size, length, capsys):
    server = serve(length=length)
    fetch(path, server, size=size)
    check_published(path)
    assert server.seen == [(None, len(CONTENT))]
    assert "file.bin" in capsys.readouterr().err
    fetch(path, server)  # It is there.
    assert len(server.seen) == 1


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_cut_connections_are_resumed(path, serve, size):
    server = serve(cuts=[100_000, 70_000])
    fetch(path, server, size=size)
    check_published(path)
    assert server.seen == [
        (None, 100_000),
        ("bytes=100000-", 70_000),
        ("bytes=170000-", 130_000),
    ]


def test_next_run_resumes(path, serve):
    first = serve(cuts=[100_000, 0])
    with pytest.raises(errors.UserError, match="continues at byte 100000"):
        fetch(path, first)
    assert not path.exists()
    assert part(path).read_bytes() == CONTENT[:100_000]
    second = serve()
    fetch(path, second)
    check_published(path)
    assert second.seen == [("bytes=100000-", 200_000)]


def test_other_mirror_resumes(path, serve):
    first, second = serve(cuts=[100_000]), serve()
    fetch(path, first, second)
    check_published(path)
    assert first.seen == [(None, 100_000)]
    assert second.seen == [("bytes=100000-", 200_000)]


def test_server_without_ranges(path, serve):
    server = serve(ranges=False, cuts=[100_000, 150_000])
    fetch(path, server)
    check_published(path)
    assert [sent for _, sent in server.seen] == [100_000, 150_000, 300_000]


def test_server_that_cuts_for_ever_is_given_up(path, serve):
    server = serve(ranges=False, cuts=[100_000] * 9)
    with pytest.raises(errors.UserError, match="ended at byte 100000 of 300000"):
        fetch(path, server)
    assert len(server.seen) == 2
    assert part(path).stat().st_size == 100_000


def test_wrong_checksum_publishes_nothing(path, serve):
    server = serve()
    with pytest.raises(errors.UserError, match="checksum is not sha256:00"):
        fetch(path, server, checksum="sha256:" + "00" * 32)
    assert not path.exists() and not part(path).exists()
    assert len(server.seen) == 1


def test_wrong_file_at_first_mirror(path, serve):
    first, second = serve(CONTENT[::-1]), serve()
    fetch(path, first, second)
    check_published(path)
    assert second.seen == [(None, len(CONTENT))]


def test_wrong_size_is_not_downloaded(path, serve):
    first, second = serve(b"<html>Please log in</html>"), serve()
    fetch(path, first, second, size=len(CONTENT))
    check_published(path)
    assert second.seen == [(None, len(CONTENT))]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize(
    ("length", "requests"), [(50_000, 2), (300_000, 2), (400_000, 2)]
)
def test_damaged_part_is_dropped(path, serve, size, length, requests):
    path.parent.mkdir()
    part(path).write_bytes(bytes(length))
    server = serve()
    fetch(path, server, size=size)
    check_published(path)
    assert server.seen[-1] == (None, len(CONTENT))
    assert len(server.seen) <= requests


def test_complete_part_is_not_sent_again(path, serve):
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)
    server = serve()
    fetch(path, server)
    check_published(path)
    assert server.seen == [("bytes=300000-", 0)]


def test_first_mirror_dead(path, serve, dead_url):
    server = serve()
    fetch(path, dead_url, server)
    check_published(path)
    assert server.seen == [(None, len(CONTENT))]


def test_all_dead(path, dead_url, serve):
    missing = serve(b"").url.replace("file.bin", "")
    with pytest.raises(errors.UserError) as caught:
        fetch(path, dead_url, missing, size=9, remedy="and set config.data.source")
    message = str(caught.value)
    assert f"{dead_url}: " in message and "Connection refused" in message
    assert f"{missing}: has a file of 0 bytes, not 9" in message
    assert "by hand from one of these addresses and set config.data.source." in message
    assert not path.exists()


def test_http_error_and_unknown_host_are_told(path, serve, monkeypatch):
    server = serve()
    monkeypatch.setattr(
        example_server.Handler, "do_GET", lambda self: self.send_error(404)
    )
    with pytest.raises(errors.UserError, match="404 Not Found") as caught:
        fetch(path, server, "http://nowhere.invalid/file.bin")
    assert "http://nowhere.invalid/file.bin: " in str(caught.value)
    assert f"by hand from one of these addresses to {path}" in str(caught.value)


def test_silent_server_is_given_up(path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.bin"
        with pytest.raises(errors.UserError, match="timed out"):
            fetch(path, url)


def test_folder_that_cannot_be_written(tmp_path, serve):
    (tmp_path / "new").write_bytes(b"a file where a folder is needed")
    with pytest.raises(errors.UserError, match="cannot be written"):
        fetch(tmp_path / "new" / "file.bin", serve())


def test_one_of_many_downloads(path, serve):
    server = serve()
    threads = [threading.Thread(target=fetch, args=(path, server)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_published(path)
    assert server.seen == [(None, len(CONTENT))]


def test_full_disk(path, serve, monkeypatch):
    # Linux has a file to try this with.
    path.parent.mkdir()
    part(path).symlink_to("/dev/full")
    with pytest.raises(errors.UserError, match="No space left on device.*make room"):
        fetch(path, serve())
    assert not path.exists()


@pytest.mark.parametrize("digits", [8, 32])
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksums_may_be_md5_or_first_digits(path, serve, algorithm, digits):
    right = hashlib.new(algorithm, CONTENT).hexdigest()[:digits]
    wrong = right[:-1] + ("1" if right[-1] == "0" else "0")
    with pytest.raises(errors.UserError, match=f"checksum is not {algorithm}:{wrong}"):
        fetch(path, serve(), checksum=f"{algorithm}:{wrong}")
    assert not path.exists()
    fetch(path, serve(), checksum=f"{algorithm}:{right}")
    assert path.read_bytes() == CONTENT
