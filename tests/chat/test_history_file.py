"""The conversation store under stress: crashes, two apps on one file, and files it must refuse."""

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_mlx.chat import history_owner, history_schema
from qwen_mlx.chat.history import History, Status
from qwen_mlx.errors import HistoryError

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------ crash, two apps


def test_a_killed_writer_loses_nothing_that_was_checkpointed(path, integrity):
    rng = random.Random(7)
    for _ in range(4):
        lines = []
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chat.writer", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(rng.randint(1, 70)):
            lines.append(process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
        # The last line may be half there: it counts only with its end.
        rest = process.stdout.read().splitlines(keepends=True)
        lines += [line.split() for line in rest if line.endswith("\n")]
        process.wait()
        with History(path) as store:
            written = {int(identity): (kind, int(length)) for kind, identity, length in lines}
            assert written
            store.recover()
            for identity, (kind, length) in written.items():
                message = store.message(identity)
                assert len(message.content) >= length
                assert message.content == "".join(f"word{n} " for n in range(20))[: len(message.content)]
                assert message.status in (("done",) if kind == "finished" else ("done", "stopped"))
    assert integrity() == ([("ok",)], [])
    assert history_owner.known_owners(path) == []


def test_recover_leaves_a_living_app_alone(path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chat.writer", str(path), "pause"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdout.readline()
        with History(path) as store, contextlib.closing(sqlite3.connect(path)) as db:
            streaming = "SELECT count(*) FROM message WHERE status = 'streaming'"
            before = db.execute(streaming).fetchone()
            assert store.recover() == 0
            assert db.execute(streaming).fetchone() == before
            process.kill()
            process.wait()
            assert store.recover() == before[0]
            assert db.execute(streaming).fetchone() == (0,)
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_two_stores_in_one_process(path):
    with History(path) as one, History(path) as two:
        conversation = one.new_conversation("shared")
        reply = one.add_message(conversation.id, "assistant", status="streaming")
        assert two.recover() == 0
        assert one.recover() == 0
        assert two.message(reply.id).status == "streaming"
        one.update_message(reply.id, content="still writing")
        one.close()
        assert two.message(reply.id).status == "stopped"
        assert two.message(reply.id).content == "still writing"
        assert two.recover() == 0


def test_rows_of_no_known_owner_are_recovered(history, path):
    conversation = history.new_conversation()
    reply = history.add_message(conversation.id, "assistant", status="streaming")
    with contextlib.closing(sqlite3.connect(path)) as db:
        for owner in (None, "1-../../x", "99999999-abcdef"):
            db.execute("UPDATE message SET owner = ?, status = 'streaming'", (owner,))
            db.commit()
            assert history.recover() == 1
            assert history.message(reply.id).status == "stopped"


def test_many_threads_share_one_store(history):
    conversation = history.new_conversation()
    root = history.add_message(conversation.id, "user", "root")

    def work(number):
        message = history.add_message(conversation.id, "user", f"text {number}", parent_id=root.id)
        history.messages(conversation.id)
        return message.id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(work, range(80)))
    assert len(set(ids)) == 80
    assert len(history.siblings(ids[0])) == 80


def test_two_apps_start_at_the_same_moment(path, integrity):
    barrier = threading.Barrier(6)

    def start(_):
        barrier.wait()
        with History(path) as store:
            return store.new_conversation("mine").id

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(start, range(6)))) == 6
    assert integrity() == ([("ok",)], [])


# ------------------------------------------------------ files it must refuse


def test_the_file_is_private(path):
    with History(path) as store:
        store.new_conversation()
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    path.chmod(0o644)
    History(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_closed_store_says_so(history):
    history.close()
    history.close()
    with pytest.raises(HistoryError, match="closed"):
        history.conversations()


@pytest.mark.parametrize("content", [b"this is no database" * 300, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_named_and_kept(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(HistoryError) as error:
        History(path)
    assert str(path) in str(error.value)
    assert "Nothing was deleted" in str(error.value)
    assert path.read_bytes() == content


def test_damage_found_later_is_explained(path):
    with History(path) as store:
        conversation = store.new_conversation()
        for number in range(200):
            store.add_message(conversation.id, "user", f"{number} " * 500)
    data = bytearray(path.read_bytes())
    for page in range(8192, len(data), 4096):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(HistoryError, match="is damaged") as error, History(path) as store:
        store.messages(conversation.id)
    assert str(path) in str(error.value)


def test_a_newer_file_is_refused_and_kept(path):
    History(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {history_schema.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"newer qwen-mlx.*Upgrade"):
        History(path)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused(path):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    path.chmod(0o644)
    with pytest.raises(HistoryError, match="another program"):
        History(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_migration_leaves_the_old_file(path, monkeypatch):
    with History(path) as store:
        store.new_conversation("kept")
    with monkeypatch.context() as patch:
        broken = (*history_schema.MIGRATIONS, ("CREATE TABLE extra (x)", "NOT SQL"))
        patch.setattr(history_schema, "MIGRATIONS", broken)
        patch.setattr(history_schema, "SCHEMA_VERSION", len(broken))
        with pytest.raises(HistoryError):
            History(path)
    with History(path) as store:
        assert [c.title for c in store.conversations()] == ["kept"]


@pytest.fixture
def open_folder():
    """A folder, and no rights beyond those of an ordinary person (root may write anything)."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_a_read_only_store_is_explained(open_folder, locked):
    path = open_folder / "home" / "history.db"
    History(path).close()
    target = path if locked == "file" else path.parent
    target.chmod(0o400 if locked == "file" else 0o500)
    try:
        with pytest.raises(HistoryError) as error:
            History(path)
        assert str(path) in str(error.value)
        assert "QWEN_MLX_HOME" in str(error.value)
    finally:
        target.chmod(0o700)


def test_a_path_that_cannot_be_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "history.db", tmp_path):
        with pytest.raises(HistoryError) as error:
            History(path)
        assert str(path) in str(error.value)


def test_a_locked_store_is_explained(path, monkeypatch):
    monkeypatch.setattr(history_schema, "BUSY_SECONDS", 0.05)
    with History(path) as store, contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match="in use by another program"):
            store.new_conversation()
        db.rollback()
        assert store.new_conversation("after").title == "after"


def test_every_status_can_be_stored(history):
    conversation = history.new_conversation()
    for status in Status.__args__:
        assert history.add_message(conversation.id, "assistant", status=status).status == status
