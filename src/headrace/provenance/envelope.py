"""Signed statements: in-toto statements in DSSE envelopes, in the bundle form that OpenSSF model-signing writes.

    sign_folder(folder, signature, signer)          # by model-signing itself; anybody can check with its own CLI
    sign_statement(statement, signer) -> bytes      # the same form for statements of other kinds
    open_bundle(raw, trusted, name) -> Opened       # the statement, once its signature was found good

Opening needs `cryptography` alone: importing model-signing costs two seconds, and doors must be quick.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import ModelRefused
from headrace.files import canonical_json
from headrace.provenance.digest import FolderDigest
from headrace.provenance.sign import Signer, Trusted, TrustedKey
from headrace.registry.mlmodel import NOT_OF_THE_MODEL
from headrace.types import Json

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
FOLDER_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True, slots=True)
class Opened:
    """A statement whose signature is good, and who signed it."""

    statement: dict[str, Any]
    signer: TrustedKey

    def files(self) -> FolderDigest:
        """Return what a statement about a folder says of its files. Raises ModelRefused for any other statement."""
        try:
            resources = self.statement["predicate"]["resources"]
            if self.statement["predicateType"] != FOLDER_PREDICATE or {item["algorithm"] for item in resources} != {
                "sha256"
            }:
                raise KeyError("predicateType")
            return FolderDigest({item["name"]: item["digest"] for item in resources})
        except (KeyError, TypeError) as error:
            raise ModelRefused(
                "A signature is about something else than a folder", "Fetch the baseline again"
            ) from error


def sign_folder(folder: Path, signature: Path, signer: Signer) -> None:
    """Write a signature over what `digest_folder` counts in a folder; a signature that lies inside is left out."""
    from model_signing.hashing import Config as Hashing
    from model_signing.signing import Config as Signing

    ignored = [path.relative_to(folder) for path in folder.rglob("*") if path.name in NOT_OF_THE_MODEL]
    ignored += [signature.relative_to(folder)] if signature.is_relative_to(folder) else []
    hashing = Hashing().use_file_serialization().set_ignored_paths(paths=ignored, ignore_git_paths=False)
    signing = Signing().set_hashing_config(hashing).use_elliptic_key_signer(private_key=signer.private)
    signing.sign(folder, signature)


def sign_statement(statement: dict[str, Json], signer: Signer) -> bytes:
    """Return a bundle that holds a signed in-toto statement."""
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(signer.private.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    payload = canonical_json(statement)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(_encoded(payload), ECDSA(SHA256()))
    return _bundle(hashlib.sha256(public).hexdigest(), payload, signature)


def _bundle(fingerprint: str, payload: bytes, signature: bytes) -> bytes:
    """Return the one text of a bundle, key by key in the order that model-signing writes."""
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _encoded(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def open_bundle(raw: bytes, trusted: Trusted, name: str) -> Opened:
    """Return the statement in a bundle.

    The bundle must be byte for byte the text that its parts make, so that a change anywhere in the file is found.

    Args:
        name: the file's name, for the error.

    Raises:
        ModelRefused: it is no bundle, was changed, or nobody who is trusted signed it.
    """
    try:
        document = json.loads(raw)
        fingerprint = document["verificationMaterial"]["publicKey"]["hint"]
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        is_whole = _bundle(fingerprint, payload, signature) == raw
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, binascii.Error) as error:
        raise _changed(name, f"it is no signature ({type(error).__name__})") from error
    if not is_whole:
        raise _changed(name, "it holds more than a signature")
    signer = trusted.keys.get(fingerprint)
    if signer is None:
        known = ", ".join(key.name for key in trusted.keys.values()) or "nobody"
        raise ModelRefused(
            f"`{name}` was signed with the key {fingerprint[:12]}…, which is not trusted here (trusted: {known})",
            "If you trust it, get its public key from there (`headrace signers list`): headrace signers add FILE.pub",
        )
    if not _is_good(signer, payload, signature):
        raise _changed(name, f"the signature of {signer.name} does not fit")
    return Opened(json.loads(payload), signer)


def _is_good(signer: TrustedKey, payload: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

    key = signer.key()
    by_size: dict[int, HashAlgorithm] = {256: SHA256(), 384: SHA384(), 521: SHA512()}
    try:
        key.verify(signature, _encoded(payload), ECDSA(by_size[key.curve.key_size]))
    except (InvalidSignature, KeyError):
        return False
    return True


def _changed(name: str, why: str) -> ModelRefused:
    return ModelRefused(f"`{name}` was changed after it was signed: {why}", "Fetch the version's baseline again")
