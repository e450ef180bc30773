"""A hub that is wrong, slow, dying or hostile: what is kept, what is refused, and what a person reads."""

from __future__ import annotations

import email.utils
import os
import threading
import time
from pathlib import Path

import pytest

from qwen_mlx.errors import Cancelled, CheckpointError, NetworkError, NotFound, QwenError
from qwen_mlx.events import CancelToken
from qwen_mlx.hub.cache import Repository
from qwen_mlx.hub.pull import PullOptions, pull
from qwen_mlx.hub.transport import Patience
from tests.hub.conftest import QUICK, content, finished, leftovers, model, notices, run
from tests.hub.fake_hub import FakeHub, Trouble, git_sha1, sha256

WEIGHTS = "model.safetensors"
BLOCK = 65536


def whole(hub: FakeHub, folder: str) -> bool:
    return (Path(folder) / WEIGHTS).read_bytes() == hub.repos["org/model"].files[WEIGHTS]


# ------------------------------------------------------------------------------------------------ connections


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_a_connection_that_breaks_goes_on_where_it_was(hub: FakeHub, kind: str) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble(kind, at=100_000, times=2)})
    assert whole(hub, finished(run()).folder)
    starts = [request.start for request in hub.asked(WEIGHTS)]
    assert starts[0] == 0 and starts == sorted(starts) and len(starts) == 3
    if kind == "truncate":  # a reset throws away what the kernel had not handed over yet
        assert starts == [0, 100_000, 200_000]
        assert hub.sent(WEIGHTS) == 300_000


def test_a_hub_that_falls_silent_is_asked_again(hub: FakeHub) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("stall", at=100_000, times=1)})
    quick = Patience(connect=5, read=0.3, attempts=3, first_wait=0.01)
    assert whole(hub, finished(run(patience=quick)).folder)
    assert hub.sent(WEIGHTS) == 300_000


def test_a_hub_that_dies_for_good_is_an_error_and_the_part_stays(hub: FakeHub, cache: Path) -> None:
    dead = Trouble("status", status=503)
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("truncate", at=100_000, times=1, then=dead)})
    with pytest.raises(NetworkError, match=r"localhost says: error 503\. Check the connection") as caught:
        run()
    assert caught.value.exit_code == 5
    assert sha256(model()[WEIGHTS]) + ".part" in leftovers(cache)
    hub.repos["org/model"].trouble.clear()
    assert whole(hub, finished(run()).folder)
    assert hub.sent(WEIGHTS) == 300_000
    assert leftovers(cache) == []


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        NetworkError, match=r"127\.0\.0\.1:1 \(HF_ENDPOINT\) cannot be used: no answer from 127\.0\.0\.1"
    ):
        run()


def test_too_many_requests_waits_as_it_is_told(hub: FakeHub) -> None:
    hub.add("org/model", model())
    hub.api_status = [(429, {"Retry-After": "0.3"})]
    began = time.monotonic()
    assert "too many requests; it asks to wait" in notices(run())
    assert time.monotonic() - began > 0.3


def test_a_date_and_a_rate_limit_header_are_understood(hub: FakeHub) -> None:
    hub.add("org/model", model())
    hub.api_status = [(429, {"Retry-After": email.utils.formatdate(time.time() + 100, usegmt=True)})]
    with pytest.raises(NetworkError, match=r"asks to wait 9[89] seconds|asks to wait 100 seconds"):
        run()
    hub.api_status = [(429, {"RateLimit": '"api";r=0;t=77'})]
    with pytest.raises(NetworkError, match="asks to wait 77 seconds"):
        run()


def test_a_limit_in_the_middle_of_a_file(hub: FakeHub) -> None:
    trouble = {WEIGHTS: Trouble("status", status=429, headers={"Retry-After": "0.1"}, times=1)}
    hub.add("org/model", model(), trouble=trouble)
    events = run()
    assert whole(hub, finished(events).folder)
    assert f"{WEIGHTS}: localhost says: too many requests" in notices(events)


# ------------------------------------------------------------------------------------------------ wrong content


@pytest.mark.parametrize(("kind", "found"), [("html", "a web page"), ("pointer", "a git-lfs pointer")])
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_something_else_instead_of_the_file(hub: FakeHub, cache: Path, kind: str, found: str, name: str) -> None:
    hub.add("org/model", model(), trouble={name: Trouble(kind)})
    if name == "config.json" and kind == "html":
        with pytest.raises(NetworkError, match="answered with a web page instead of data"):
            run()
    else:
        with pytest.raises((CheckpointError, NetworkError), match=found + "|does not speak the protocol"):
            run()
    assert not (cache / "models--org--model" / "refs").exists()
    assert not any(sha256(hub.repos["org/model"].files[WEIGHTS]) in name for name in leftovers(cache))


def test_a_wrong_checksum_is_refused_and_deleted(hub: FakeHub, cache: Path) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("flip")})
    with pytest.raises(CheckpointError, match=r"another checksum than .* lists; it was deleted") as caught:
        run()
    assert caught.value.exit_code == 6
    assert not any(sha256(hub.repos["org/model"].files[WEIGHTS]) in name for name in leftovers(cache))
    assert not list(cache.rglob(WEIGHTS))
    hub.repos["org/model"].trouble.clear()
    assert whole(hub, finished(run()).folder)


def test_a_small_file_with_a_wrong_checksum(hub: FakeHub) -> None:
    hub.add("org/model", model(), trouble={"generation_config.json": Trouble("flip")})
    with pytest.raises(CheckpointError, match=r"generation_config\.json has another checksum"):
        run()


@pytest.mark.parametrize("kind", ["length", "longer"])
def test_a_size_that_is_not_the_one_of_the_listing(hub: FakeHub, cache: Path, kind: str) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble(kind)})
    with pytest.raises(CheckpointError, match=r"lists model\.safetensors with 300000 bytes; found \d+ bytes when"):
        run()
    assert not any(sha256(hub.repos["org/model"].files[WEIGHTS]) in name for name in leftovers(cache))


def test_a_listing_that_lies_about_the_size(hub: FakeHub, cache: Path) -> None:
    repo = hub.add("org/model", model())
    right = repo.entry(WEIGHTS)["lfs"]
    for size in (10, 10**12):
        repo.listed[WEIGHTS] = {"lfs": {**right, "size": size}, "size": size}
        with pytest.raises(QwenError, match=r"with 10 bytes; found 300000|too little space"):
            run()
    for size in (-1, "12", 1.5, None, 2**60):
        repo.listed[WEIGHTS] = {"lfs": {**right, "size": size}, "size": size}
        with pytest.raises(CheckpointError, match="the hub's listing is damaged"):
            run()
    assert not list(cache.rglob(WEIGHTS))


def test_a_file_that_changes_in_the_middle_starts_again_alone(hub: FakeHub) -> None:
    repo = hub.add("org/model", {**model(), "model-other.safetensors": content(100_000, 9)})
    repo.trouble[WEIGHTS] = Trouble("truncate", at=100_000, times=1, etag_after="after")
    repo.server_etags[WEIGHTS] = "before"
    events = run()
    assert whole(hub, finished(events).folder)
    assert f"{WEIGHTS}: it changed on the server, or the server cannot continue it; it is fetched again" in notices(
        events
    )
    asked = [(request.start, request.if_range) for request in hub.asked(WEIGHTS)]
    assert asked[:2] == [(0, None), (100_000, '"before"')]
    assert hub.sent("model-other.safetensors") == 100_000


def test_other_content_under_the_same_commit_is_refused(hub: FakeHub) -> None:
    repo = hub.add("org/model", model())
    repo.listed[WEIGHTS] = repo.entry(WEIGHTS)
    repo.files[WEIGHTS] = content(300_000, 77)
    with pytest.raises(CheckpointError, match=r"model\.safetensors changed on the hub while the model was downloaded"):
        run()


@pytest.mark.parametrize("kind", ["416", "bad_range", "no_range"])
def test_a_server_that_cannot_continue(hub: FakeHub, cache: Path, kind: str) -> None:
    repo = hub.add("org/model", model())
    repository = Repository("org/model")
    repository.blobs.mkdir(parents=True)
    repository.part(sha256(repo.files[WEIGHTS])).write_bytes(repo.files[WEIGHTS][:100_000])
    repo.trouble[WEIGHTS] = Trouble(kind)
    events = run()
    assert whole(hub, finished(events).folder)
    assert "it is fetched again from its start" in notices(events)


def test_a_server_that_compresses_against_our_will(hub: FakeHub) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("gzip")})
    with pytest.raises(NetworkError, match=r"sends model\.safetensors compressed \(gzip\)"):
        run()


# ------------------------------------------------------------------------------------------------ what was there


def part_of(hub: FakeHub, length: int, **changes: bytes) -> Path:
    files = hub.add("org/model", model()).files
    repository = Repository("org/model")
    repository.blobs.mkdir(parents=True)
    part = repository.part(sha256(files[WEIGHTS]))
    part.write_bytes(changes.get("content", files[WEIGHTS][:length]))
    return part


def test_a_part_without_a_note_is_used(hub: FakeHub) -> None:
    part_of(hub, 200_000)
    assert whole(hub, finished(run()).folder)
    assert hub.sent(WEIGHTS) == 100_000


def test_a_part_with_a_flipped_byte_is_noticed_and_thrown_away(hub: FakeHub) -> None:
    right = model()[WEIGHTS]
    part_of(hub, 0, content=right[:999] + bytes([right[999] ^ 1]) + right[1000:200_000])
    events = run()
    assert whole(hub, finished(events).folder)
    assert "its checksum is wrong, perhaps by what was there before" in notices(events)
    assert hub.sent(WEIGHTS) == 100_000 + 300_000


def test_a_note_finds_the_damage_before_anything_is_asked_for(hub: FakeHub) -> None:
    part = part_of(hub, 200_000)
    note = part.with_name(part.name + ".json")
    note.write_text('{"size": 300000, "bytes": 150000, "digest": "another", "server_etag": null}')
    events = run()
    assert whole(hub, finished(events).folder)
    assert "the part that was there is damaged; starting again" in notices(events)
    assert hub.sent(WEIGHTS) == 300_000


@pytest.mark.parametrize("text", ["", "[]", "{", '{"size": "x"}', '{"size": 300000, "bytes": -5}', "\x00\xff"])
def test_a_damaged_note_is_no_note(hub: FakeHub, text: str) -> None:
    part = part_of(hub, 200_000)
    part.with_name(part.name + ".json").write_text(text)
    assert whole(hub, finished(run()).folder)
    assert hub.sent(WEIGHTS) == 100_000


@pytest.mark.parametrize("length", [300_000, 300_001, 400_000])
def test_a_part_that_is_whole_or_too_long(hub: FakeHub, length: int) -> None:
    part_of(hub, 0, content=(model()[WEIGHTS] + bytes(100_000))[:length])
    assert whole(hub, finished(run()).folder)
    assert hub.sent(WEIGHTS) == (0 if length == 300_000 else 300_000)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "a/../../evil.json",
        "/etc/evil.json",
        "C:/evil.json",
        "..\\evil.json",
        "a\\b.json",
        "a\0b.json",
        "a\nb.json",
        "a//b.json",
        "./a.json",
        "x" * 300 + ".json",
        "",
    ],
)
def test_names_that_lead_somewhere_else_refuse_the_whole(hub: FakeHub, cache: Path, name: str) -> None:
    bad = {"type": "file", "path": name, "size": 2, "oid": git_sha1(b"{}")}
    hub.add("org/model", model(), extra=[bad])
    with pytest.raises(CheckpointError, match="refused: it holds a file with the name"):
        run()
    assert not cache.exists()


@pytest.mark.parametrize("name", [".env.json", ".git/config.json", "a/.hidden/x.json", "setup.py", "x.PKL", "run.sh"])
def test_hidden_files_and_code_are_never_fetched(hub: FakeHub, name: str) -> None:
    hub.add("org/model", {**model(), name: b"{}"})
    folder = Path(finished(run(include=["*"])).folder)
    assert not (folder / name).exists() and not hub.asked(name)


def test_names_that_differ_in_capitals_only(hub: FakeHub) -> None:
    hub.add("org/model", {**model(), "Config.json": b"{}"})
    with pytest.raises(CheckpointError, match=r"both .*onfig\.json.* many disks cannot tell them apart"):
        run()


@pytest.mark.parametrize("entry", ["text", {"size": 1}, {"path": 7}, None])
def test_a_listing_that_is_no_listing(hub: FakeHub, entry: object) -> None:
    hub.add("org/model", model(), extra=[entry])  # type: ignore[list-item]
    with pytest.raises(CheckpointError, match="the hub's listing is damaged"):
        run()


# ------------------------------------------------------------------------------------------------ access


def error_of(name: str = "org/model") -> QwenError:
    with pytest.raises(QwenError) as caught:
        run(name)
    return caught.value


def test_gated(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model(), gate="gated")
    error = error_of()
    assert error.exit_code == 5 and "is gated: its makers ask who downloads it" in str(error)
    assert f"Accept the licence at {hub.url}/org/model, then log in with `hf auth login`" in str(error)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert "the account of your token has no access yet. Accept the licence" in str(error_of())


def test_a_token_that_is_not_accepted(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model())
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_one")
    error = error_of()
    assert error.exit_code == 5 and "does not accept your token" in str(error)
    assert "hf_wrong_one" not in str(error)


def test_a_token_without_the_right(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model(), gate="forbidden")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    error = error_of()
    assert "does not let you have org/model; found Your token cannot read this" in str(error)
    assert "may lack the permission" in str(error)


def test_a_repository_that_is_not_there_or_private(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model(), gate="private")
    for name in ("org/model", "org/other"):
        error = error_of(name)
        assert isinstance(error, NotFound) and error.exit_code == 3
        assert f"there is no repository {name}" in str(error) and "if it is private: log in" in str(error)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert finished(run()).received
    assert "Check the spelling." in str(error_of("org/other"))


def test_a_revision_that_is_not_there(hub: FakeHub) -> None:
    hub.add("org/model", model())
    with pytest.raises(NotFound, match="org/model has no revision 'v9'"):
        run(revision="v9")


def test_the_stored_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", model(), gate="private")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{hub.token}\n")
    assert finished(run()).received


def test_the_token_stays_with_its_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model", model())
    monkeypatch.setenv("HF_TOKEN", hub.token)
    run()
    (weights,) = hub.asked(WEIGHTS)
    assert weights.host.startswith("localhost") and weights.authorization is None
    assert all(request.authorization == f"Bearer {hub.token}" for request in hub.asked("config.json"))


def test_a_warning_before_a_token_goes_to_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen_mlx.hub import endpoint

    monkeypatch.setenv("HF_TOKEN", "hf_x")
    for url, warning in (
        ("http://hub.example.org", "unencrypted connection to http://hub.example.org"),
        ("https://hub.example.org", "not a hub we know"),
        ("https://huggingface.co", None),
        ("https://hf-mirror.com/", None),
        ("http://127.0.0.1:8000", None),
    ):
        monkeypatch.setenv("HF_ENDPOINT", url)
        found = endpoint.current().warning()
        assert (warning in found) if warning and found else found is warning
        assert "hf_x" not in repr(endpoint.current())


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "javascript:alert(1)"])
def test_redirects_to_other_than_the_web(hub: FakeHub, target: str) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("evil_redirect", headers={"Location": target})})
    with pytest.raises(NetworkError, match=r"redirects to|leads to an address that cannot be used"):
        run()


def test_redirects_in_a_circle(hub: FakeHub) -> None:
    circle = {"Location": f"/org/model/resolve/{'a' * 40}/{WEIGHTS}"}
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("evil_redirect", headers=circle)})
    with pytest.raises(NetworkError, match="redirects in a circle"):
        run()


def test_signatures_of_addresses_are_not_shown(hub: FakeHub) -> None:
    hub.add("org/model", model(), trouble={WEIGHTS: Trouble("status", status=403)})
    error = error_of()
    assert "X-Signature" not in str(error) and "private" not in str(error)


# ------------------------------------------------------------------------------------------------ mirrors


def test_a_mirror_that_knows_nothing(hub: FakeHub) -> None:
    hub.add("org/model", model(), hub_headers=False, gate="private")
    with pytest.raises(NotFound, match="there is no repository"):
        run()
    hub.api_status = [(404, {})]
    with pytest.raises(NetworkError, match=r"answered without the hub's headers \(no X-Error-Code, no X-Repo-Commit\)"):
        run()


def test_a_mirror_without_checksums(hub: FakeHub) -> None:
    repo = hub.add("org/model", model())
    repo.listed["config.json"] = {"oid": None}
    with pytest.raises(NetworkError, match=r"answers without the hub's checksums: none for 'config\.json'"):
        run()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><html>Log in</html>", "answered with a web page instead of data"),
        (b"hello", "does not speak the protocol of a model hub; expected JSON"),
        (b'{"sha": "../../x"}', "does not speak the protocol of a model hub; expected a commit"),
        (b"[]", "expected a commit"),
    ],
)
def test_an_endpoint_that_is_no_hub(hub: FakeHub, body: bytes, message: str) -> None:
    hub.api_body = body
    with pytest.raises(NetworkError, match=message):
        run()


@pytest.mark.parametrize("url", ["not an address", "ftp://x", "https://user:word@host"])
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(QwenError, match="HF_ENDPOINT") as caught:
        run()
    assert caught.value.exit_code == 2 and "word" not in str(caught.value).replace("password", "")


# ------------------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize("moment", ["listing", "stall", "slow", "waiting", "limited"])
def test_cancelling_takes_less_than_a_second(hub: FakeHub, cache: Path, moment: str) -> None:
    repo = hub.add("org/model", model(3_000_000))
    options: dict[str, object] = {"patience": Patience(first_wait=30)}
    if moment == "stall":
        repo.trouble[WEIGHTS] = Trouble("stall", at=100_000)
    elif moment == "slow":
        hub.rate = 200_000
    elif moment == "waiting":
        repo.trouble[WEIGHTS] = Trouble("status", status=503)
    elif moment == "limited":
        options["limit_rate"] = 100_000
    else:
        hub.api_status = [(503, {})] * 9
    cancel = CancelToken()
    threading.Timer(0.6, cancel.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run(cancel=cancel, **options)
    assert 0.5 < time.monotonic() - began < 1.6
    hub.rate = None
    repo.trouble.clear()
    hub.api_status = []
    assert whole(hub, finished(run()).folder)
    if moment in ("stall", "slow"):
        assert hub.sent(WEIGHTS) < 3_000_000 + 4 * BLOCK


def test_leaving_the_iterator_stops_the_threads(hub: FakeHub) -> None:
    hub.add("org/model", model(2_000_000))
    hub.rate = 300_000
    events = pull("org/model", PullOptions(patience=QUICK))
    for event in events:
        if getattr(event, "done", 0) > 50_000:
            break
    events.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    while any(thread.name == "qwen-mlx pull" for thread in threading.enumerate()):
        assert time.monotonic() - began < 2
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------ two at once


def test_two_processes_on_one_model(hub: FakeHub, tmp_path: Path) -> None:
    import fcntl

    from qwen_mlx.hub.lock import lock_file, locked

    hub.add("org/model", model())
    repository = Repository("org/model")
    path = lock_file(repository)
    path.parent.mkdir(parents=True)
    path.write_text(f"{os.getppid()}\n")
    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(QwenError, match=rf"another process \(pid {os.getppid()}\) is downloading org/model"),
            locked(repository, CancelToken(), wait=0.1),
        ):
            raise AssertionError("two owners")
    assert finished(run()).received  # the file is still there, and names a process that has no lock


def test_a_file_system_without_locks_asks_whether_the_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_mlx.hub import lock

    def unsupported(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    repository = Repository("org/model")
    path = lock.lock_file(repository)
    path.parent.mkdir(parents=True)
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(QwenError, match="another process"), lock.locked(repository, CancelToken(), wait=0):
        pass
    path.write_text("999999999\n")  # no such process
    with lock.locked(repository, CancelToken(), wait=0):
        assert path.read_text() == f"{os.getpid()}\n"


# ------------------------------------------------------------------------------------------------ the environment


@pytest.mark.parametrize("token", ["hf_ü", "hf_a b", "hf_\x01"])
def test_a_token_that_is_none(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(QwenError, match="holds characters that no token has") as caught:
        run()
    assert token not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://[::"])
def test_a_proxy_that_cannot_be_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(NetworkError, match="the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used"):
        run()
