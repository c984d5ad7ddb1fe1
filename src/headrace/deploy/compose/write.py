"""The files of `headrace init --compose`: a user's own from then on. Secrets are made here and written nowhere else."""

import re
import secrets
from importlib.resources import files
from pathlib import Path

from headrace.errors import Conflict
from headrace.files import write_atomically

TEMPLATES = ("compose.yaml", "Dockerfile", "postgres.sh", "backup.sh", "restore.sh", "README.md")
SECRETS = "secrets"


def write_compose(folder: Path, *, force: bool = False) -> list[Path]:
    """Write the files and, where there are none yet, new secrets; return what was written.

    Args:
        force: replace files that are there. Secrets are never replaced: databases were made with them.

    Raises:
        Conflict: a file is there already.
    """
    present = [name for name in TEMPLATES if (folder / name).exists()]
    if present and not force:
        raise Conflict(f"{folder / present[0]} is there already.", "Use another folder, or --force.")
    written = []
    for name in TEMPLATES:
        content = files(__package__).joinpath(name).read_text()
        write_atomically(folder / name, content, mode=0o755 if name.endswith(".sh") else 0o644)
        written.append(folder / name)
    for name in ("wheels", "components"):
        (folder / name).mkdir(exist_ok=True)
    (folder / SECRETS).mkdir(mode=0o700, exist_ok=True)
    (folder / SECRETS).chmod(0o700)
    for name, content in _secrets(folder / SECRETS).items():
        # Containers read them as a user of their own; on this machine the folder keeps others out.
        write_atomically(folder / SECRETS / name, content, mode=0o644)
        written.append(folder / SECRETS / name)
    ignored = folder / ".gitignore"
    if not ignored.exists():
        write_atomically(ignored, f"{SECRETS}/\nwheels/\n", mode=0o644)
    return written


def _secrets(folder: Path) -> dict[str, str]:
    """Return the contents of the secret files that are absent."""
    made: dict[str, str] = {}

    def secret(name: str) -> str:
        path = folder / name
        if name not in made and not path.exists():
            made[name] = secrets.token_urlsafe(24)
        return made.get(name) or path.read_text().strip()

    words = {name: secret(f"{name}_password") for name in ("owner", "worker", "mlflow")}
    users = {"owner": "headrace", "worker": "headrace_worker", "mlflow": "mlflow"}
    for name, password in words.items():
        database = "mlflow" if name == "mlflow" else "headrace"
        made[f"{name}_database_url"] = f"postgresql://{users[name]}:{password}@postgres:5432/{database}"
    keys = {"s3_credentials": "headrace", "s3_reader_credentials": "reader"}
    for name, key in keys.items():
        path = folder / name
        credentials = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secrets.token_urlsafe(24)}\n"
        made[name] = path.read_text() if path.exists() else credentials
    pairs = [re.findall(r"= *(\S+)", made[name]) for name in keys]
    made["s3_keys"] = ",".join(f'"{key},{word}"' for key, word in pairs)
    # The store's list of keys follows from the others.
    return {name: content for name, content in made.items() if name == "s3_keys" or not (folder / name).exists()}
