"""The thread that owns MLX: jobs in, events out, nothing ever hangs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from qwen_mlx.events import (
    FINAL_EVENTS,
    JobCancelled,
    JobFailed,
    LoadModel,
    Message,
    ModelLoaded,
    Progress,
    Reply,
    ReplyFinished,
    SamplingOptions,
)
from qwen_mlx.models.quantized_cache import QuantizedKVCache
from qwen_mlx.runtime.thread import ThreadRuntime


def hello(count: int = 5, text: str = "hi") -> Reply:
    return Reply("a", (Message("user", text),), SamplingOptions(max_tokens=count))


def test_load_and_reply(runtime: ThreadRuntime, folder: Path) -> None:
    assert runtime.model is None
    events = list(runtime.submit(LoadModel(str(folder))))
    assert isinstance(events[0], Progress)
    assert isinstance(events[-1], ModelLoaded)
    assert runtime.model == events[-1].info
    assert runtime.model is not None
    assert (runtime.model.family, runtime.model.context, runtime.model.thinking) == ("qwen3", 2048, "optional")
    for _ in range(2):
        handle = runtime.submit(hello())
        assert isinstance(list(handle)[-1], ReplyFinished)
        assert handle.finished


def test_a_quantized_cache(runtime: ThreadRuntime, folder: Path) -> None:
    assert isinstance(list(runtime.submit(LoadModel(str(folder), kv_bits="8/4")))[-1], ModelLoaded)
    assert isinstance(list(runtime.submit(hello()))[-1], ReplyFinished)
    assert runtime._session is not None
    prefix = runtime._session.prefixes.take("a", range(100))
    assert all(isinstance(layer, QuantizedKVCache) for layer in prefix.caches)


def test_longer_texts(runtime: ThreadRuntime, folder: Path) -> None:
    list(runtime.submit(LoadModel(str(folder), rope_scaling="yarn:4")))
    assert runtime.model is not None
    assert runtime.model.context == 4 * 2048
    failed = list(runtime.submit(LoadModel(str(folder), rope_scaling="yarn")))[-1]
    assert isinstance(failed, JobFailed)
    assert (failed.expected, failed.exit_code) == (True, 2)


def test_jobs_run_in_order(runtime: ThreadRuntime, folder: Path) -> None:
    handles = [runtime.submit(job) for job in (LoadModel(str(folder)), hello(), hello())]
    assert [type(list(h)[-1]) for h in handles] == [ModelLoaded, ReplyFinished, ReplyFinished]


def test_failures_are_events_and_the_next_job_works(runtime: ThreadRuntime, folder: Path, tmp_path: Path) -> None:
    failed = list(runtime.submit(hello()))[-1]
    assert isinstance(failed, JobFailed)
    assert failed.expected
    assert "no model is loaded" in failed.error
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    failed = list(runtime.submit(LoadModel(str(broken))))[-1]
    assert isinstance(failed, JobFailed)
    assert failed.expected
    assert failed.exit_code == 6
    assert isinstance(list(runtime.submit(LoadModel(str(folder))))[-1], ModelLoaded)
    before = runtime.model
    assert isinstance(list(runtime.submit(LoadModel(str(broken))))[-1], JobFailed)
    assert runtime.model == before  # the model before stays
    failed = list(runtime.submit(Reply("a", ())))[-1]
    assert isinstance(failed, JobFailed)
    assert isinstance(list(runtime.submit(hello()))[-1], ReplyFinished)


def test_a_bug_is_an_event_too(runtime: ThreadRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(runtime.submit(LoadModel(str(folder))))

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("qwen_mlx.chat.session.ChatSession.prompt", broken)
    failed = list(runtime.submit(hello()))[-1]
    assert isinstance(failed, JobFailed)
    assert not failed.expected
    assert "oops" in failed.error
    assert "Traceback" in failed.details
    monkeypatch.undo()
    assert isinstance(list(runtime.submit(hello()))[-1], ReplyFinished)


def test_cancel_of_a_running_and_of_a_waiting_job(runtime: ThreadRuntime, folder: Path) -> None:
    list(runtime.submit(LoadModel(str(folder))))
    running, waiting = runtime.submit(hello(1800)), runtime.submit(hello(1800))
    waiting.cancel()
    for _ in running:
        running.cancel()
    assert running.finished
    assert isinstance(list(waiting)[-1], JobCancelled)


def test_a_cancelled_reply_says_so(runtime: ThreadRuntime, folder: Path) -> None:
    list(runtime.submit(LoadModel(str(folder))))
    handle = runtime.submit(hello(1800, "hello " * 200))
    events = []
    for event in handle:
        events.append(event)
        handle.cancel()
    assert isinstance(events[-1], ReplyFinished)
    assert events[-1].reason == "cancelled"


def test_draining_from_another_thread_loses_nothing(runtime: ThreadRuntime, folder: Path) -> None:
    list(runtime.submit(LoadModel(str(folder))))
    iterated = list(runtime.submit(hello(30)))
    handle, drained = runtime.submit(hello(30)), []
    deadline = time.monotonic() + 60
    while not handle.finished and time.monotonic() < deadline:
        drained += handle.drain()
        time.sleep(0.001)
    assert handle.finished
    assert handle.drain() == []
    assert isinstance(drained[-1], FINAL_EVENTS)
    assert isinstance(iterated[-1], ReplyFinished)
    assert isinstance(drained[-1], ReplyFinished)
    assert drained[-1].message == iterated[-1].message


def test_closing_cancels_and_refuses(folder: Path) -> None:
    runtime = ThreadRuntime()
    loading = runtime.submit(LoadModel(str(folder)))
    reply = runtime.submit(hello(1800))
    runtime.close(30)
    assert not runtime.running
    assert isinstance(list(loading)[-1], FINAL_EVENTS)
    assert isinstance(list(reply)[-1], FINAL_EVENTS)
    with pytest.raises(RuntimeError):
        runtime.submit(hello())


def test_a_runtime_that_did_nothing_has_no_thread() -> None:
    before = threading.active_count()
    runtime = ThreadRuntime()
    assert threading.active_count() == before
    runtime.close()
