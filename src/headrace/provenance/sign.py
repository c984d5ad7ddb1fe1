"""Keys: who signs here, and whose signatures count.

    own_signer(settings.keys) -> Signer       # made at first use, 0600, in the 0700 state folder
    trusted_signers(settings.keys) -> Trusted # every public key in keys/trusted/*.pub, the own one among them
    trust(settings.keys, file) / distrust(settings.keys, name)

Verification needs public keys only. Who loses the private key loses the power to sign and nothing else: the next use
makes a new one, and what the old one signed stays good as long as its public key stays in `trusted`.
"""

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import Conflict, InvalidConfig, InvalidInput, NotFound
from headrace.files import write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PRIVATE = "signing.pem"
TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key of this installation, by path; it is read when something is signed."""

    private: Path
    name: str


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose signatures count.

    Attributes:
        name: the file's name without `.pub`.
        fingerprint: SHA-256 over the PEM text; signatures name their key by it.
    """

    name: str
    fingerprint: str
    pem: bytes

    def key(self) -> "EllipticCurvePublicKey":
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        key = load_pem_public_key(self.pem)
        if not isinstance(key, EllipticCurvePublicKey):
            raise InvalidConfig(
                f"The trusted key `{self.name}` is no elliptic-curve key", "Remove it from keys/trusted"
            )
        return key


@dataclass(frozen=True, slots=True)
class Trusted:
    """The keys whose signatures count, by fingerprint."""

    keys: Mapping[str, TrustedKey]
    folder: Path


def own_signer(keys: Path) -> Signer:
    """Return this installation's signer; its key is made at first use, by one of several processes.

    Raises:
        InvalidConfig: others may read the private key, or it is no elliptic-curve key.
    """
    private = keys / PRIVATE
    if not private.exists():
        _make_key(private)
    mode = stat.S_IMODE(private.stat().st_mode)
    if mode & 0o077:
        raise InvalidConfig(f"Others may read the signing key {private} (mode {mode:o})", f"chmod 600 {private}")
    public = _public_pem(private)
    name = f"installation-{hashlib.sha256(public).hexdigest()[:12]}"
    trusted = keys / TRUSTED / f"{name}.pub"
    if not trusted.exists():
        write_atomically(trusted, public, mode=0o644)
    return Signer(private, name)


def trusted_signers(keys: Path) -> Trusted:
    """Return the keys in `keys/trusted`."""
    folder = keys / TRUSTED
    found = {}
    for path in sorted(folder.glob("*.pub")):
        pem = path.read_bytes()
        fingerprint = hashlib.sha256(pem).hexdigest()
        found[fingerprint] = TrustedKey(path.stem, fingerprint, pem)
    return Trusted(found, folder)


def trust(keys: Path, public_key: Path, *, name: str = "") -> TrustedKey:
    """Count another installation's signatures from now on; a repeat changes nothing.

    Raises:
        InvalidInput: the file is no public key of an elliptic curve, or the name says something else already.
    """
    try:
        raw = public_key.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{public_key} cannot be read: {error.strerror}.") from error
    if b"PRIVATE KEY" in raw:
        raise InvalidInput(
            f"{public_key} is a private key. Whoever has it signs in its owner's name.",
            "Ask for the public one: `headrace signers list` shows its file there.",
        )
    pem = _canonical(raw, public_key)
    key = TrustedKey(name or public_key.stem, hashlib.sha256(pem).hexdigest(), pem)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]{0,62}", key.name) is None:
        raise InvalidInput(
            f"`{key.name}` is no name for a signer.", "Use letters, digits, `.`, `_`, `-`: --name laptop"
        )
    known = {one.name: one for one in trusted_signers(keys).keys.values()}
    if key.name in known and known[key.name].fingerprint != key.fingerprint:
        raise InvalidInput(
            f"`{key.name}` is the name of another key ({known[key.name].fingerprint[:12]}).",
            "Give it a name: --name NAME",
        )
    twin = next((one for one in known.values() if one.fingerprint == key.fingerprint), None)
    if twin is None:
        write_atomically(keys / TRUSTED / f"{key.name}.pub", pem, mode=0o644)
    return twin or key


def distrust(keys: Path, name: str) -> TrustedKey:
    """Count a signer's signatures no more.

    Raises:
        NotFound: there is no such signer.
        Conflict: it is this installation's own, which comes back with the next signature.
    """
    known = {one.name: one for one in trusted_signers(keys).keys.values()}
    if name not in known:
        raise NotFound(f"There is no signer `{name}` (there are: {', '.join(sorted(known)) or 'none'}).")
    private = keys / PRIVATE
    if private.exists() and _public_pem(private) == known[name].pem:
        raise Conflict(
            f"`{name}` is this installation's own key.",
            f"To sign with another from now on, move the private key away first: {private}",
        )
    (keys / TRUSTED / f"{name}.pub").unlink()
    return known[name]


def _canonical(raw: bytes, path: Path) -> bytes:
    """Return a public key as the one PEM text that fingerprints are taken of."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path} holds no public key in PEM form.") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise InvalidInput(f"{path} is no elliptic-curve key; headrace signs with those.")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _make_key(private: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=private.parent, prefix=".signing-")
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, private)  # Fails where another process was faster; theirs is the key then.
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _public_pem(private: Path) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(private.read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InvalidConfig(f"{private} is no elliptic-curve key", f"Move it aside; the next use makes one: {private}")
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
