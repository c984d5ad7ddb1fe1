"""The first cause in TorchServe's logs. The samples are logs of a real TorchServe 0.12, one for each way to fail."""

from pathlib import Path

import pytest

from headrace.deploy.torchserve.log import answer_cause, first_cause, server_cause

LOGS = Path(__file__).parent / "torchserve_logs"
FACTS = {
    "missing-dependency": "The module `phonemizer_pro` is not installed and not in the archive (handler.py, line 1).",
    "syntax-error": "handler.py, line 8 is no valid Python: '(' was never closed.",
    "state-dict-mismatch": "The weights do not fit the network Sequential: size mismatch for 0.weight",
    "corrupt-weights": "The weights in the archive are damaged or cut off (handler.py, line 10).",
    "forgotten-extra-file": "The file `index_to_name.json` is not in the archive (handler.py, line 8).",
    "forgotten-module": "The module `network` is not installed and not in the archive (handler.py, line 8).",
    "wrong-torch": "The model was saved by another version of torch than the one that is installed",
    "out-of-memory": "The worker ran out of memory (handler.py, line 8)",
    "killed": "The worker was killed while it loaded the model",
}


@pytest.mark.parametrize("name", FACTS)
def test_the_first_cause_of_a_recorded_failure_is_told(name: str) -> None:
    cause = first_cause((LOGS / f"{name}.log").read_text(), name, version="1.0")
    assert cause is not None
    assert cause.fact.startswith(FACTS[name])
    assert cause.fact.endswith(".")
    assert cause.remedy


@pytest.mark.parametrize("name", FACTS)
def test_other_models_in_the_same_log_do_not_matter(name: str) -> None:
    texts = [path.read_text() for path in sorted(LOGS.glob("*.log"))]
    alone = first_cause((LOGS / f"{name}.log").read_text(), name)
    assert first_cause("".join(texts), name) == alone
    assert first_cause("".join(reversed(texts)), name) == alone
    assert first_cause("".join(texts), name, version="2.0") is None
    assert first_cause("".join(texts), "healthy") is None


def test_a_warning_that_was_written_after_the_failure_that_points_at_it_still_counts() -> None:
    lines = (LOGS / "wrong-torch.log").read_text().splitlines(keepends=True)
    errors = [line for line in lines if "-stderr " in line]
    late = [line for line in lines if "-stderr " not in line] + errors
    assert errors
    cause = first_cause("".join(late), "wrong-torch")
    assert cause is not None
    assert "SchemaVersion(major=9, minor=20) does not match" in cause.fact


@pytest.mark.parametrize("name", FACTS)
def test_lines_of_the_two_streams_may_mix(name: str) -> None:
    lines = (LOGS / f"{name}.log").read_text().splitlines(keepends=True)
    errors = [line for line in lines if "-stderr " in line]
    others = [line for line in lines if "-stderr " not in line]
    expected = first_cause("".join(lines), name)
    for place in range(0, len(others), 3):
        mixed = [*errors[:2], *others[:place], *errors[2:], *others[place:]]
        assert first_cause("".join(mixed), name) == expected


def test_a_model_whose_name_begins_like_anothers_is_not_mistaken() -> None:
    log = (LOGS / "missing-dependency.log").read_text()
    assert first_cause(log, "missing") is None
    assert first_cause(log, "missing-dependency", version="1") is None


def test_an_unknown_failure_is_told_as_it_is() -> None:
    head = "2026-11-21T03:28:10,000 [INFO ] W-9000-m_1-stdout MODEL_LOG - "
    lines = [
        "Traceback (most recent call last):",
        '  File "/srv/torchserve/ts/model_service_worker.py", line 133, in load_model',
        '  File "/srv/run/tmp/models/8b525f70571d45aab5deb3ddfca784d3/handler.py", line 3, in initialize',
        "mine.Unheard: the moon is full",
    ]
    cause = first_cause("".join(f"{head}{line}\n" for line in lines), "m")
    assert cause is not None
    assert cause.fact == "The handler failed with Unheard: the moon is full (handler.py, line 3)."


def test_an_answer_that_says_it_all_needs_no_log() -> None:
    token = (
        '{"code": 400, "type": "InvalidKeyException", "message": "Token Authentication failed. Token either incorrect"}'
    )
    cause = answer_cause(400, token)
    assert cause is not None
    assert "token authorisation is on" in cause.fact
    assert answer_cause(500, '{"message": "Failed to start workers for model m version: 1"}') is None
    other = answer_cause(404, '{"code": 404, "message": "Model archive not found"}')
    assert other is not None
    assert other.fact == "TorchServe answered 404: Model archive not found."


def test_a_server_that_does_not_come_up_says_why() -> None:
    taken = server_cause("java.io.IOException: Failed to bind to address: http://127.0.0.1:8081\n\tat org.pytorch…")
    assert taken is not None
    assert taken.fact == "Port 8081 is taken."
    assert server_cause("Model server started.") is None
