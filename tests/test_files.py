"""Files are replaced as a whole or not at all, and damage is found."""

import errno
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import make, temporary_of

import nncore
from nncore import _files

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs permissions and locks of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a network, alone in its directory."""
    path = tmp_path / "net.safetensors"
    make([3, 2], seed=0).save(path)
    return path


def assert_unreadable(path: Path) -> None:
    with pytest.raises(ValueError, match="not a file that this version of nncore can read") as got:
        nncore.load(path)
    assert str(path) in str(got.value)


# Damage.


def test_a_file_cut_at_any_length_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert_unreadable(path)


def test_a_file_with_more_at_its_end_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for more in (b"\0", b" ", content):
        path.write_bytes(content + more)
        assert_unreadable(path)


def test_a_changed_bit_in_any_byte_is_found(path: Path) -> None:
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert_unreadable(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        b"PK\x03\x04" + bytes(1000),
        b"text " * 100,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (2**63).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b'{"__metadata__":{}} ',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (4).to_bytes(8, "little") + b"\xff\xfe\x00\x00",
    ],
)
def test_files_of_other_origin_are_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert_unreadable(path)


def test_a_small_file_cannot_make_nncore_allocate_much(path: Path) -> None:
    """Neither for the architecture that it declares nor for its tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["nncore"] = '{"version": 1}'
    architecture = json.loads(header["__metadata__"]["architecture"])
    architecture["sizes"] = [30_000, 20_000]
    header["__metadata__"]["architecture"] = json.dumps(architecture)
    for shape in ([3, 2], [30_000, 20_000]):
        header["weights.1"]["shape"] = shape
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        tracemalloc.start()
        try:
            assert_unreadable(path)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_saving_copies_no_parameters(path: Path) -> None:
    net = make([500, 400], seed=0)
    tracemalloc.start()
    try:
        net.save(path)
        assert tracemalloc.get_traced_memory()[1] < net.parameters.nbytes / 10
    finally:
        tracemalloc.stop()


# Writing.


def test_saving_leaves_one_file(path: Path) -> None:
    make([3, 2], seed=1).save(path)
    assert list(path.parent.iterdir()) == [path]
    assert nncore.load(path).equals(make([3, 2], seed=1))


def test_saving_in_the_working_directory_needs_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make([3, 2]).save("net")
    assert os.listdir() == ["net"]


@pytest.fixture
def unchanged(path: Path) -> Iterator[None]:
    """Asserts that the old file stays as it is, and that nothing else remains."""
    before = path.read_bytes()
    yield
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "broken"), PermissionError(errno.EACCES, "no"), KeyboardInterrupt()],
)
def test_an_error_leaves_the_old_file(
    name: str, error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(type(error)) as got:
        make([3, 2], seed=1).save(path)
    assert got.value is error


FULL_DISK = """
import errno, os, resource, sys
import nncore

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    nncore.Network([100, 100], seed=1).save(sys.argv[1])
except OSError as error:
    assert error.errno == errno.EFBIG, error
    assert error.filename == os.path.realpath(sys.argv[1]), error
else:
    raise SystemExit("no error")
"""


@needs_posix
@pytest.mark.usefixtures("unchanged")
def test_a_disk_without_room_leaves_the_old_file(path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL_DISK, path], check=True)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make([3, 2]).save(tmp_path / "missing" / "net")
    with pytest.raises(FileNotFoundError):
        nncore.load(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_a_directory_is_reported(tmp_path: Path) -> None:
    for call in (make([3, 2]).save, nncore.load):
        with pytest.raises(OSError):  # noqa: PT011 - PermissionError on Windows
            call(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_not_a_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular file"):
        make([3, 2]).save(tmp_path / "pipe")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


@needs_posix
def test_a_link_stays_and_its_target_is_replaced(path: Path) -> None:
    (path.parent / "folder").mkdir()
    link = path.parent / "folder" / "link"
    link.symlink_to(path)
    make([3, 2], seed=1).save(link)
    assert link.is_symlink()
    assert not path.is_symlink()
    assert nncore.load(path).equals(make([3, 2], seed=1))
    assert list(link.parent.iterdir()) == [link]


@needs_posix
def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path, net = tmp_path / "net", make([3, 2])
    before = os.umask(0o027)
    try:
        net.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        net.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["n" * 255, "\N{SNOWMAN}" * 85])
@needs_posix
def test_a_name_may_be_as_long_as_the_system_allows(name: str, tmp_path: Path) -> None:
    net = make([3, 2])
    net.save(tmp_path / name)
    assert nncore.load(tmp_path / name).equals(net)
    with _files.replacing(tmp_path / name):  # another process writes at the same time
        net.save(tmp_path / name)


# Files that a killed process left, and processes that write at the same time.


@needs_posix
def test_what_a_killed_process_left_is_overwritten(path: Path) -> None:
    left = temporary_of(path)
    left.write_bytes(b"incomplete" * 1000)
    make([3, 2], seed=1).save(path)
    assert list(path.parent.iterdir()) == [path]
    assert nncore.load(path).equals(make([3, 2], seed=1))


@needs_posix
def test_two_processes_that_write_at_the_same_time_do_not_mix(path: Path) -> None:
    with _files.replacing(path) as other:
        other.write(b"incomplete")
        make([3, 2], seed=1).save(path)
        assert nncore.load(path).equals(make([3, 2], seed=1))
    assert path.read_bytes() == b"incomplete"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("unchanged")
def test_an_error_without_locks_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where the temporary file is closed before it is renamed."""

    def fail(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(_files, "fcntl", None)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        make([3, 2], seed=1).save(path)


@needs_posix
def test_a_temporary_file_that_cannot_be_opened_does_no_harm(path: Path) -> None:
    temporary_of(path).mkdir()
    make([3, 2], seed=1).save(path)
    assert nncore.load(path).equals(make([3, 2], seed=1))


def test_types_of_all_tensors_return(tmp_path: Path) -> None:
    path = tmp_path / "file"
    codes = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i2"]
    tensors = {code: np.arange(-1, 5).astype(code).reshape(2, 3) for code in codes}
    tensors |= {"scalar": np.array(1.5), "empty": np.empty((0, 3)), "strided": np.eye(4)[::2, 1:]}
    _files.write(path, _files.Contents({"note": [1, "a"]}, tensors))
    sections, again = _files.read(path)
    assert sections == {"note": [1, "a"]}
    assert again.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype.newbyteorder("<")


def test_without_safetensors_everything_works_but_reading(path: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["safetensors"] = None
import nncore
from nncore.__main__ import main
net, optimizer = nncore.Network([3, 2], seed=0), nncore.Adam()
X, Y = [[0, 1, 2], [3, 4, 5]], [[0, 1], [1, 0]]
net.save({str(tmp_path / "written")!r})
before = net.parameters.tobytes()
for call in (
    lambda: nncore.load({str(path)!r}),
    lambda: net.fit(X, Y, optimizer=optimizer, resume={str(path)!r}),
):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
assert net.parameters.tobytes() == before and optimizer.step_count == 0
net.fit(X, Y, optimizer=optimizer, callbacks=[nncore.callbacks.Checkpoint({str(path)!r})])
from nncore import selftest
selftest.CHECKS = {{selftest.files: "files", selftest.subnormal_numbers: "subnormal numbers"}}
print(main(["selftest"]), main(["info"]))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "written").read_bytes()
    message = "reading a file needs safetensors: run `pip install safetensors`"
    out = process.stdout.splitlines()
    assert out[:2] == [message] * 2
    assert out.index("skipped files") == out.index(f"        {message}") - 1
    assert "ok      subnormal numbers" in out
    assert out[-1] == "0 0"
