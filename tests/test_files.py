import os
import pickle
import tarfile

import pytest

from fcn_jax import errors
from fcn_jax.data import files

CONTENT = {"a.txt": b"one", "b/c/d.bin": bytes(range(256)) * 5, "b/empty": b""}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    for name, data in (CONTENT | {".hidden/x": b"", "b/._a.txt": b""}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "round").symlink_to(root)
    return root


@pytest.fixture(params=["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"])
def archive(folder, request, tmp_path):
    path = tmp_path / "files.tar"
    with tarfile.open(path, "w", format=getattr(tarfile, request.param)) as tar:
        tar.add(folder, ".")
    return path


def test_folder_and_archive_hold_the_same(folder, archive):
    for path in (folder, archive):
        found = pickle.loads(pickle.dumps(files.open_files(path)))
        assert found.path == path
        assert found.names == set(CONTENT)
        for name, data in CONTENT.items():
            assert found.read(name) == data
            assert found.stat(name)[0] == len(data)


def test_stat_notices_a_change(folder, archive):
    for path, changed in ((folder, folder / "a.txt"), (archive, archive)):
        before = files.open_files(path).stat("a.txt")
        assert files.open_files(path).stat("a.txt") == before
        changed.write_bytes(changed.read_bytes())
        assert files.open_files(path).stat("a.txt") != before


def test_later_file_of_the_same_name_counts(tmp_path):
    path = tmp_path / "twice.tar"
    for mode, text in (("w", b"old"), ("a", b"newer")):
        (tmp_path / "a").write_bytes(text)
        with tarfile.open(path, mode) as tar:
            tar.add(tmp_path / "a", "a")
    assert files.open_files(path).read("a") == b"newer"


def test_names_that_lead_out_are_left_out(tmp_path):
    path = tmp_path / "out.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../a", "b/../../a", "/etc/a", "b/../in"):
            tar.addfile(tarfile.TarInfo(name))
    assert files.open_files(path).names == {"in"}


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root):
        folder.mkdir()
    (outside / "a").write_bytes(b"text")
    (outside / "back").symlink_to(root)
    (root / "folder").symlink_to(outside)
    (root / "twin").symlink_to(outside)
    (root / "file").symlink_to(outside / "a")
    (root / "self").symlink_to("self")
    (tmp_path / "link").symlink_to(root)
    found = files.open_files(tmp_path / "link")
    assert found.names == {"file", "folder/a", "twin/a", "self"}
    for name in ("file", "folder/a", "twin/a"):
        assert found.read(name) == b"text" and found.stat(name)[0] == 4
    with pytest.raises(errors.UserError, match="self cannot be read: Too many"):
        found.read("self")


def test_what_has_no_end_is_not_read(tmp_path):
    (tmp_path / "everything").symlink_to("/")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = files.open_files(tmp_path)
    assert found.names == {"zeros", "pipe", "gone"}
    for name, why in (
        ("zeros", "it is no file"),
        ("pipe", "it is no file"),
        ("gone", "it is a link to 'nowhere', which does not exist"),
    ):
        for method in (found.read, found.stat):
            with pytest.raises(errors.UserError, match=f"{name} cannot .*: {why}"):
                method(name)


def test_every_truncation_is_noticed(archive):
    data = archive.read_bytes()
    with tarfile.open(archive) as tar:
        tar.getmembers()
        end = tar.offset
    for length in [*range(0, end, 256), end - 1, end]:
        archive.write_bytes(data[:length])
        with pytest.raises(errors.UserError, match=r"files\.tar is damaged"):
            files.open_files(archive)


def test_damaged_headers_are_noticed(archive):
    data = archive.read_bytes()
    with tarfile.open(archive) as tar:
        offsets = [member.offset for member in tar]
    for offset in offsets:
        bad = bytearray(data)
        bad[offset : offset + 512] = b"\x81" * 512
        archive.write_bytes(bad)
        with pytest.raises(errors.UserError, match=r"files\.tar is damaged"):
            files.open_files(archive)


def test_compressed_archive_is_refused(folder, tmp_path):
    path = tmp_path / "files.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, ".")
    with pytest.raises(errors.UserError, match="Unpack a compressed one"):
        files.open_files(path)


def test_what_is_missing_is_named(folder, archive):
    with pytest.raises(errors.UserError, match=r"nowhere does not exist"):
        files.open_files(folder / "nowhere")
    found = files.open_files(folder)
    (folder / "a.txt").unlink()
    for method in (found.read, found.stat):
        with pytest.raises(errors.UserError, match=r"a\.txt cannot be read"):
            method("a.txt")
    found = files.open_files(archive)
    for method in (found.read, found.stat):
        with pytest.raises(errors.UserError, match=r"files\.tar has no file x\.txt"):
            method("x.txt")
    archive.write_bytes(archive.read_bytes()[:600])
    with pytest.raises(errors.UserError, match="became shorter"):
        found.read("b/c/d.bin")
