"""How an object store is reached: endpoint, region and credentials, which stand in the environment or in a file."""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from headrace.errors import InvalidConfig

#: The first that is set counts; the later ones are those of other tools.
ENDPOINTS = ("HEADRACE_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
REGIONS = ("HEADRACE_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION")
FILES = ("HEADRACE_S3_CREDENTIALS_FILE", "AWS_SHARED_CREDENTIALS_FILE")
AUTHORITIES = ("HEADRACE_S3_CA_FILE", "AWS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True, slots=True)
class S3Access:
    """One way to an S3-compatible store.

    Attributes:
        endpoint: `https://HOST[:PORT]`; empty for AWS itself.
        key: the access key's name; empty where the machine itself has the right (an instance role).
        authority: a file with the certificates that the endpoint's is checked against; empty for the system's.
    """

    endpoint: str = ""
    region: str = "us-east-1"
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    authority: str = ""

    def as_variables(self) -> dict[str, str]:
        """Return the variables that other tools (MLflow, boto3) read; for one child's environment, never for a file."""
        found = {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_SESSION_TOKEN": self.token,
            "AWS_DEFAULT_REGION": self.region,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_CA_BUNDLE": self.authority,
        }
        return {name: value for name, value in found.items() if value}


def read_s3(variables: Mapping[str, str]) -> S3Access:
    """Return how the environment says that the object store is reached.

    Raises:
        InvalidConfig: half of a pair of keys, or a file that cannot be read or lacks the profile.
    """
    named = (variables.get("AWS_ACCESS_KEY_ID", ""), variables.get("AWS_SECRET_ACCESS_KEY", ""))
    token = variables.get("AWS_SESSION_TOKEN", "")
    if any(named) and not all(named):
        raise InvalidConfig(
            "Only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set.",
            "Set both, or name a file that holds both: HEADRACE_S3_CREDENTIALS_FILE",
        )
    file = _first(variables, FILES)
    # A file that was named for headrace is meant; the variables may be there for something else.
    if variables.get(FILES[0]) or (file and not all(named)):
        named, token = _read_file(Path(file), variables.get("AWS_PROFILE") or "default")
    return S3Access(
        endpoint=_checked_endpoint(_first(variables, ENDPOINTS)),
        region=_first(variables, REGIONS) or "us-east-1",
        key=named[0],
        secret=named[1],
        token=token,
        authority=_first(variables, AUTHORITIES),
    )


def checked_url(url: str, variable: str) -> str:
    """Return a store's address, `s3://BUCKET[/PREFIX]` or `file:///FOLDER`, without a slash at its end.

    Raises:
        InvalidConfig: it is none, or holds credentials.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidConfig(
            f"{variable} holds credentials, which do not belong in an address.",
            "Write s3://BUCKET/PREFIX, and the keys into a file: HEADRACE_S3_CREDENTIALS_FILE",
        )
    if (parts.scheme, bool(parts.netloc)) not in (("s3", True), ("file", False)) or not (parts.netloc + parts.path):
        raise InvalidConfig(f"{variable} is `{url}`, which is no place for files.", "Write s3://BUCKET/PREFIX.")
    return url.rstrip("/")


def _checked_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
        raise InvalidConfig(
            f"The S3 endpoint at `{parts.hostname or ''}` is no http(s)://HOST[:PORT] without credentials.",
            "HEADRACE_S3_ENDPOINT_URL=https://s3.example.com",
        )
    return url.rstrip("/")


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((variables[name] for name in names if variables.get(name)), "")


def _read_file(path: Path, profile: str) -> tuple[tuple[str, str], str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    remedy = f"It must hold the lines [{profile}], aws_access_key_id = …, aws_secret_access_key = …"
    try:
        parser.read_string(path.read_text())
        section = parser[profile]
        return (section["aws_access_key_id"], section["aws_secret_access_key"]), section.get("aws_session_token", "")
    except OSError as error:
        raise InvalidConfig(f"The credentials file {path} cannot be read: {error.strerror}.", remedy) from error
    except KeyError as error:
        raise InvalidConfig(f"The credentials file {path} lacks {error}.", remedy) from error
    except configparser.Error:
        # The cause would show the line, which may be the secret.
        raise InvalidConfig(f"The credentials file {path} cannot be understood.", remedy) from None
