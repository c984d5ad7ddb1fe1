"""An MLflow server that cannot be used is said so at once, before anything is done."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.errors import Unavailable
from headrace.processes import free_port
from headrace.registry.mlflow import MlflowRegistry, check_server


@contextmanager
def answering(text: str, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class says so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_of_today_is_taken() -> None:
    with answering("3.17.2") as uri:
        check_server(uri)
    check_server("sqlite:///mlflow.db")


@pytest.mark.parametrize(
    ("text", "status", "fact"),
    [
        ("2.22.0", 200, "is version 2.22.0; headrace needs 3.0 or newer"),
        ("<html>hello</html>", 200, "is no MLflow server"),
        ("not found", 404, "is no MLflow server"),
        ("", 401, "asks for a login"),
    ],
)
def test_others_are_refused(text: str, status: int, fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    with answering(text, status) as uri, pytest.raises(Unavailable, match=fact) as refused:
        check_server(uri)
    assert refused.value.remedy


def test_a_server_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    registry = MlflowRegistry(Settings(tmp_path, tmp_path, tracking_uri=uri))
    with pytest.raises(Unavailable, match=f"MLFLOW_TRACKING_URI names, {uri}, does not answer") as refused:
        registry.versions("digits")
    assert "unset" in refused.value.remedy
