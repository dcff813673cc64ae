"""Nothing that a station, a driver or an operator sends reaches a terminal or a log as it is, if it could act there."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms_observer import escape, write_log_line
from local import explain, maintain, run
from local.terminal import LineFormatter, escape_lines, escape_values

HOSTILE = "CP\x1b[2J\r\n\x7f\x9b2J\u202e\u2028\U000e0001\ud800"
ESCAPED = r"CP\u001b[2J\r\n\u007f\u009b2J\u202e\u2028\udb40\udc01\ud800"
TEXTS = st.text(st.characters(exclude_categories=()))


def test_escaped_text_shows_what_it_was() -> None:
    assert ESCAPED == escape(HOSTILE)
    assert "Straße 🔌 電" == escape("Straße 🔌 電")


@given(entry=st.dictionaries(TEXTS, TEXTS))
def test_log_line_is_printable_json(entry: dict[str, str]) -> None:
    line = write_log_line(entry)

    assert line.isprintable()
    assert json.loads(json.dumps(entry)) == json.loads(line)


def test_functions_log_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    from csms_wiring import open_log

    logger, _ = open_log("hostile")
    lines = StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", lines)

    logger.error("refused", extra={"identity": HOSTILE})

    (line, end) = lines.getvalue().split("\n")
    assert (True, "") == (line.isprintable(), end)
    assert HOSTILE == json.loads(line)["identity"]


def test_library_message_is_one_line() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "got %s", (HOSTILE,), sys.exc_info())

    first, *traceback = LineFormatter("%(message)s").format(record).split("\n")

    assert f"got {ESCAPED}" == first
    assert "Traceback (most recent call last):" == traceback[0]
    assert all(line.isprintable() for line in traceback)


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {"a": [{HOSTILE: HOSTILE}]}, {"n": 1, "x": None, "t": True}])
def test_every_text_in_json_is_escaped(value: Any) -> None:
    assert json.loads(json.dumps(value).replace(json.dumps(HOSTILE), json.dumps(ESCAPED))) == escape_values(value)


@contextmanager
def answering(status: int, content: Any) -> Iterator[str]:
    """The address of a server that answers everything with this JSON."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_explained_texts_are_escaped() -> None:
    with answering(200, {"identity": HOSTILE, "timeline": [{"kind": HOSTILE}]}) as url:
        answer = explain.fetch_occupancy(url, "CP", "1", "token")

    assert {"identity": ESCAPED, "timeline": [{"kind": ESCAPED}]} == answer


def test_refusal_is_one_escaped_line() -> None:
    with answering(404, {"message": HOSTILE}) as url, pytest.raises(explain.ExplainError) as refused:
        explain.fetch_occupancy(url, "CP", "1", "token")

    assert f"404: {ESCAPED}" == str(refused.value)


def test_maintenance_report_is_escaped() -> None:
    with answering(200, {"planned": [HOSTILE]}) as url:
        report = maintain.invoke_maintenance(url, {"dryRun": True})

    assert ESCAPED == maintain.render_sweep(report, dry_run=True)


def test_charger_event_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    run.print_event("CP", HOSTILE)

    assert f"CP {ESCAPED}\n" == capsys.readouterr().out


def test_own_lines_are_kept() -> None:
    assert "a\nb\\u001b" == escape_lines("a\nb\x1b")
