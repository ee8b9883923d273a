"""The door of the app: every request is handed on with known values, or answered by one sentence."""

import asyncio
import json
import os
import time
from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.hostile import WRONG, hostile
from keyorbit.app.calls import CHAIRS, INPUTS
from keyorbit.app.checks import Checked, Endpoint, Endpoints, Refused
from keyorbit.app.door import API, Door
from keyorbit.app.uploads import Limits
from keyorbit.app.visits import GRACE_SECONDS, KEEP_SECONDS, TICK_SECONDS, Left, Visits

HERE = "/scratch/a.png"
FILE = {"path": HERE, "meta": {"_type": "gradio.FileData"}}
GOOD = {
    "find": [FILE],
    "dropped": [None, "auto", None],
    "corrected": [FILE, "keep", FILE],
    "example": [5],
    "source": [CHAIRS],
    "discover": [CHAIRS, [FILE], 12.0, 200],
    "stop": [],
    "attention": [FILE, 3],
    "attention_example": [0],
    "step": ["place", 0, 1, None, 0.5, 0.25, None],
    "watch": [],
    "export": [],
    "board": [],
    "begin": [],
    "fit": [],
    "back": [],
}
KNOWN = [Endpoint(i, name, name in ("find", "stop"), not name.endswith("example")) for i, name in enumerate(GOOD)]
ANSWERS = ("accepted", "one sentence")
ENDPOINTS = Endpoints(KNOWN, lambda path: path == HERE)


def checked(values, name, by_name=True):
    """What becomes of a call: "accepted", or "one sentence"."""
    try:
        found = ENDPOINTS.call(values, name, by_name)
    except Refused as refusal:
        words = refusal.sentence
        return "one sentence" if 0 < len(words) < 600 and "\n" not in words else words
    assert isinstance(found, Checked)
    json.dumps(found.values)
    assert all(path == HERE for path in found.files)
    return "accepted"


def test_good_calls_pass_with_what_is_known_of_them_alone():
    assert GOOD.keys() == INPUTS.keys()
    for name, data in GOOD.items():
        assert checked({"data": data}, name) == "accepted"
    call = {"data": [FILE | {"orig_name": "\ud800", "url": "http://127.0.0.1/"}, None], "session_hash": "a", "x": 1}
    found = ENDPOINTS.call(call, "find", True)
    assert found.values == {"data": [FILE, None, None, None], "fn_index": 0, "session_hash": "a"}
    assert (found.session, found.files) == ("a", [HERE])
    assert ENDPOINTS.named({"picture": FILE, "token": None}, "attention").values == {"picture": FILE, "token": None}


@pytest.mark.parametrize("name", list(GOOD))
def test_wrong_inputs_are_one_sentence(name, tally):
    for i in range(len(GOOD[name])):
        for wrong in WRONG:
            data = [*GOOD[name][:i], wrong, *GOOD[name][i + 1 :]]
            answered = checked({"data": data}, name)
            assert answered in ANSWERS
            tally["app", "inputs of endpoints", answered] += 1
    many, needed = len(fields(INPUTS[name])), sum(item.default is MISSING for item in fields(INPUTS[name]))
    for data in ([None] * (many + 2), [None] * (needed - 1) if needed else "a"):
        assert checked({"data": data}, name) == "one sentence"


@given(st.sampled_from(list(GOOD)), st.lists(hostile(), max_size=5))
def test_any_inputs_are_accepted_or_one_sentence(tally, name, data):
    answered = checked({"data": data}, name)
    assert answered in ANSWERS
    tally["app", "inputs of endpoints", answered] += 1


@pytest.mark.parametrize("field", ["data", "fn_index", "session_hash", "trigger_id", "batched", "event_data"])
def test_wrong_bodies_are_one_sentence(field, tally):
    for wrong in WRONG:
        for body in ({"data": [], "session_hash": "a", field: wrong}, wrong):
            answered = checked(body, None, by_name=False)
            assert answered in ANSWERS
            tally["app", "bodies of calls", answered] += 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "http://127.0.0.1:9/x.png", "\x00", "\ud800", "x" * 5000, ""])
def test_only_what_was_uploaded_is_a_file(path, tmp_path):
    assert checked({"data": [FILE | {"path": path}]}, "find") == "one sentence"
    visits = Visits(tmp_path / "scratch")
    (tmp_path / "secret.png").touch()
    visits.scratch.mkdir()
    (visits.scratch / "link.png").symlink_to(tmp_path / "secret.png")
    (visits.scratch / "a.png").touch()
    assert visits.holds(str(visits.scratch / "a.png"))
    for other in (path, str(visits.scratch), str(visits.scratch / "link.png"), f"{visits.scratch}/../secret.png"):
        assert not visits.holds(other)


def asked(path, body=b"", method="POST", app=None, limits=None, folder="/nowhere", headers=()):
    """Status and body with which the door answers, and what it handed on."""
    handed, sent = [], []

    async def inner(scope, receive, send):
        message = await receive()
        handed.append(message["body"])
        if app is not None:
            await app(scope, receive, send)

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(Door(inner, KNOWN, Visits(folder), limits or Limits())(scope, receive, send))
    status = sent[0]["status"] if sent and "status" in sent[0] else None
    return status, b"".join(part.get("body", b"") for part in sent).decode(), handed


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch"


BODIES = (
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'{"data": [NaN]}',
        b'{"data": [1e999]}',
        b'{"data": 3}',
    ),
    *(b'{"data": 3}', b'{"data": [' + b"1" * 5000 + b"]}", b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    *(b'{"data": ["' + b"x" * 2**21 + b'"]}', b'{"data": ["a"], "session_hash": "../x"}'),
)


@pytest.mark.parametrize("route", ["queue/join", "call/find", "call/v2/find", "run/find", "run/x", "cancel", "reset"])
def test_bodies_that_are_no_calls_are_one_sentence(route, scratch, tally):
    for body in BODIES:
        status, told, handed = asked(f"{API}/{route}", body, folder=scratch)
        assert status in (400, 404, 413, 422)
        assert json.loads(told)["error"]
        assert handed == []
        tally["app", "bodies of calls", "one sentence"] += 1


def test_a_sentence_is_told_in_the_form_that_the_clients_show(scratch):
    status, told, _ = asked(f"{API}/call/attention", json.dumps({"data": [None, "a"]}).encode(), folder=scratch)
    (entry,) = json.loads(told)["detail"]
    assert (status, entry["__type__"], entry["is_valid"]) == (422, "validate", False)
    assert "token cannot be 'a'; it must be a number >= 0 and <= 31" in entry["message"]


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/proxy=http://x", "/gradio_api/deep_link", "/gradio_api/component_server", "/monitoring/summary"),
        *("/gradio_api/runs", "/gradio_api/process_recording", "/gradio_api/api/find", "/login", "/x", "//", ""),
    ],
)
def test_routes_that_the_page_does_not_use_are_closed(path, scratch):
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert asked(path, method=method, folder=scratch)[::2] == (404, [])
    assert asked(f"{API}/file=/etc/passwd", method="GET", folder=scratch)[::2] == (403, [])
    assert asked(f"{API}/file=http://127.0.0.1:9/x", method="GET", folder=scratch)[::2] == (403, [])
    assert asked(f"{API}/info", method="GET", folder=scratch)[2] == [b""]


def test_uploads_that_are_too_large_or_too_many_are_refused(scratch, monkeypatch):
    few, path = Limits(bytes=10, pictures=2), f"{API}/upload"

    async def read(scope, receive, send):
        await receive()

    assert asked(path, b"x" * 20, folder=scratch, limits=few)[2] == [b"x" * 20]
    assert asked(path, b"x" * 21, app=read, folder=scratch, limits=few)[0] == 413
    for length in (b"21", b"-5", b"a"):
        assert asked(path, folder=scratch, limits=few, headers=[(b"content-length", length)])[0] == 413
    monkeypatch.setattr("keyorbit.app.visits.MOST_FILES", 0)
    status, told, handed = asked(path, b"x", folder=scratch, limits=few)
    assert (status, handed) == (503, [])
    assert "no room" in told


def test_what_gradio_raises_is_one_line_in_the_log_and_one_sentence(scratch, caplog):
    async def fails(scope, receive, send):
        raise KeyError("boxes\nand boxes")

    status, told, _ = asked(f"{API}/upload", app=fails, folder=scratch)
    assert (status, json.loads(told)["error"][:24]) == (400, "the server cannot answer")
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


def test_a_visit_takes_its_files_with_it(scratch):
    visits = Visits(scratch)
    for name in ("example", "mine", "shared", "later"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "a.png").touch()
        if name == "example":
            visits.keep()
    visits.come("me")
    visits.come("me")
    time.sleep(2 * TICK_SECONDS)
    visits.use("me", [str(scratch / name / "a.png") for name in ("example", "mine", "shared", "later")])
    visits.use("you", [str(scratch / "shared" / "a.png")])
    os.utime(scratch / "later" / "a.png")  # uploaded again, by somebody
    mine, errand = visits.of("me"), visits.errand("me")
    with errand.new_folder() as folder:
        (folder / "result").touch()
    visits.leave("me")
    assert not errand.over()
    visits.leave("me")
    visits.leave("me")
    assert errand.over()
    with pytest.raises(Left), errand.new_folder():
        pass
    visits.tidy()
    assert (folder / "result").is_file()  # Gradio may be at it
    mine.seen -= GRACE_SECONDS
    visits.tidy()
    assert not mine.folder.exists()
    assert sorted(path.name for path in scratch.iterdir() if path.name != "visits") == ["example", "later", "shared"]


def test_everything_is_removed_after_an_hour_but_the_examples(scratch, monkeypatch):
    visits = Visits(scratch)
    (scratch / "example").mkdir(parents=True)
    (scratch / "example" / "a.png").touch()
    visits.keep()
    with visits.errand("me").new_folder() as folder:
        (folder / "result").touch()
    (scratch / "aborted").touch()
    assert visits.tidy()
    assert (scratch / "aborted").exists()
    monkeypatch.setattr("keyorbit.app.visits.KEEP_SECONDS", -1.0)
    assert KEEP_SECONDS == 3600
    for _ in range(2):
        visits.tidy()
    assert len(visits) == 0
    assert [path.name for path in scratch.rglob("*")] == ["example", "a.png"]
