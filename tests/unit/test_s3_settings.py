"""How an object store is named and reached, and that no key is ever shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from headrace.bucket import Bucket
from headrace.config.s3 import S3Access, read_s3
from headrace.config.settings import Settings
from headrace.errors import HeadraceError, InvalidConfig, NotFound, Unavailable
from headrace.sigv4 import signed

SECRET = "canary-secret-91c"
KEYS = {"AWS_ACCESS_KEY_ID": "canary-key-7d1", "AWS_SECRET_ACCESS_KEY": SECRET}


def test_keys_come_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = other\naws_secret_access_key = {SECRET}%\n")
    named = read_s3(KEYS)
    filed = read_s3({"HEADRACE_S3_CREDENTIALS_FILE": str(file), **KEYS})
    assert (named.key, named.secret) == ("canary-key-7d1", SECRET)
    assert (filed.key, filed.secret) == ("other", f"{SECRET}%")
    assert read_s3({"AWS_SHARED_CREDENTIALS_FILE": str(file), **KEYS}) == named
    assert read_s3({}) == S3Access()


def test_the_endpoint_is_the_first_that_is_named() -> None:
    found = read_s3({"MLFLOW_S3_ENDPOINT_URL": "http://a:9000", "HEADRACE_S3_ENDPOINT_URL": "https://s3.example.com/"})
    assert found.endpoint == "https://s3.example.com"
    assert found.as_variables()["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.example.com"


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_SECRET_ACCESS_KEY": SECRET},
        {"HEADRACE_S3_CREDENTIALS_FILE": "broken"},
        {"HEADRACE_S3_CREDENTIALS_FILE": "half"},
        {"HEADRACE_S3_CREDENTIALS_FILE": "missing"},
        {"HEADRACE_S3_ENDPOINT_URL": f"https://key:{SECRET}@host"},
    ],
)
def test_no_mistake_shows_a_key(variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken").write_text(f"aws_secret_access_key {SECRET}\n")
    Path("half").write_text(f"[default]\naws_secret_access_key = {SECRET}\n")
    with pytest.raises(InvalidConfig) as caught:
        read_s3(variables)
    told: BaseException | None = caught.value
    while told is not None:
        assert SECRET not in f"{told} {getattr(told, 'remedy', '')}"
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)


def test_places_for_predictions_and_artifacts_are_checked(tmp_path: Path) -> None:
    def settings(url: str) -> Settings:
        return Settings(tmp_path, tmp_path, variables={"HEADRACE_PREDICTIONS_URL": url, "HEADRACE_ARTIFACTS_URL": url})

    assert settings("s3://logs/headrace/").predictions_url == "s3://logs/headrace"
    assert settings("s3://models").artifacts_url == "s3://models"
    assert settings("").predictions_url == ""
    for wrong in ("logs", "https://host/bucket", "s3://", f"s3://key:{SECRET}@bucket"):
        with pytest.raises(InvalidConfig) as caught:
            _ = settings(wrong).predictions_url
        assert SECRET not in str(caught.value)


def test_settings_and_buckets_show_no_key(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, variables=KEYS)
    assert "canary" not in f"{settings!r} {settings.s3!r} {Bucket('s3://b', settings.s3)!r}"


class TestAFolderAsAStore:
    @pytest.fixture
    def bucket(self, tmp_path: Path) -> Bucket:
        return Bucket(f"file://{tmp_path}/store")

    def test_what_was_put_comes_back(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.check()
        bucket.put("a/one", b"first")
        bucket.put("a/one", b"second")
        (tmp_path / "file").write_bytes(b"x" * 20_000_000)
        bucket.below("b").put_file("two", tmp_path / "file")
        assert bucket.get("a/one") == b"second"
        assert bucket.sizes() == {"a/one": 6, "b/two": 20_000_000}
        assert (bucket.folders(), bucket.size("a/one"), bucket.size("a")) == (["a", "b"], 6, None)
        assert bucket.fetch("b/two", tmp_path / "c" / "copy").stat().st_size == 20_000_000
        bucket.remove("a/one")
        bucket.remove("a/one")
        with pytest.raises(NotFound, match="There is no file"):
            bucket.get("a/one")

    def test_an_empty_store_lists_nothing(self, bucket: Bucket) -> None:
        assert (bucket.sizes(), bucket.folders()) == ({}, [])


def test_what_a_store_answers_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket("s3://logs", S3Access("http://127.0.0.1:1", key="canary-key-7d1", secret=SECRET))

    class Refusing:
        def get_file_info(self, _: object) -> object:
            raise OSError(f"AWS Error SIGNATURE_DOES_NOT_MATCH during HeadObject: key canary-key-7d1, tried {SECRET}")

    monkeypatch.setattr("headrace.bucket._opened", lambda _: Refusing())
    with pytest.raises(Unavailable) as caught:
        bucket.size("x")
    error: HeadraceError = caught.value
    assert "canary" not in f"{error} {error.remedy} {error.__cause__}"
    assert error.remedy.startswith("The secret key is not the access key's")


def test_requests_are_signed_as_aws_documents_it() -> None:
    # Their example is a GET with a Range header; ours signs fewer headers, so the chain is checked by a second hand.
    access = S3Access("https://s3.example.com", key="AKIDEXAMPLE", secret="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    request = signed(access, "DELETE", "logs", "a b/ü.json", at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC))
    assert request.url == "https://s3.example.com/logs/a%20b/%C3%BC.json"
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    theirs = AWSRequest("DELETE", request.url, headers={"X-Amz-Date": "20150830T123600Z"})
    theirs.context["timestamp"] = "20150830T123600Z"
    signer = S3SigV4Auth(credentials, "s3", "us-east-1")
    theirs.headers["X-Amz-Content-SHA256"] = signer.payload(theirs)
    signature = signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)
    assert request.headers["authorization"].endswith(f"Signature={signature}")
