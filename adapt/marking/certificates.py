"""Certificates for signing: created for testing, and checked before anything is signed with them.

A signer's certificate must be an X.509 leaf, issued by another certificate, for one of the purposes that the C2PA library
accepts (:data:`PURPOSES`), with the matching private key.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from configs import InputError

if TYPE_CHECKING:
    from cryptography import x509 as x509_types
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CERTIFICATE_VARIABLE, KEY_VARIABLE = "HEADSTART_SIGN_CERT", "HEADSTART_SIGN_KEY"
# Purposes of a certificate that C2PA signing accepts: emailProtection, documentSigning, C2PA's own claim signing.
PURPOSES = {
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.62558.2.1": "C2PA claim signing",
}
INSTALL = "pip install 'headstart[sign]'"
AFTERWARDS = (
    "A verifier will call files signed with it valid, and their signer untrusted: this authority is private. "
    "For a signer that others trust, buy a certificate for C2PA claim signing from an authority on the C2PA trust list "
    "(https://c2pa.org/conformance) and give its chain and key to --sign."
)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A checked signer.

    Attributes:
        chain: the leaf and its issuers without the root, PEM.
        key: the leaf's private key, PEM, PKCS #8; not part of the printed form.
        algorithm: C2PA's name of the signature algorithm, such as ``es256``.
        subject: whom the certificate names.
    """

    chain: str
    key: str
    algorithm: str
    subject: str

    def __repr__(self) -> str:
        return f"Credentials(subject={self.subject!r}, algorithm={self.algorithm!r})"


def load_credentials(chain: str | Path | None = None, key: str | Path | None = None) -> Credentials | None:
    """The signer of ``chain`` and ``key``, else of ``HEADSTART_SIGN_CERT`` and ``HEADSTART_SIGN_KEY``, else ``None``.

    Raises:
        InputError: one of the two is missing or unreadable, the certificate is expired, self-signed or for another purpose,
            or the key does not belong to it.
    """
    chain = chain or os.environ.get(CERTIFICATE_VARIABLE)
    key = key or os.environ.get(KEY_VARIABLE)
    if not chain and not key:
        return None
    if not chain or not key:
        missing = "certificate chain" if key else "private key"
        raise InputError(
            f"signing: the {missing} is missing; give --sign CHAIN.pem KEY.pem or set both "
            f"{CERTIFICATE_VARIABLE} and {KEY_VARIABLE}"
        )
    leaves = _certificates(Path(chain))
    private = _private_key(Path(key))
    _check_fit(leaves[0], private, Path(chain), Path(key))
    _check_dates(leaves[0], Path(chain))
    _check_purpose(leaves[0], Path(chain))
    return Credentials(
        chain=_pem([c for i, c in enumerate(leaves) if i == 0 or c.issuer != c.subject]),
        key=_key_pem(private),
        algorithm=_algorithm(private, Path(key)),
        subject=leaves[0].subject.rfc4514_string(),
    )


def sign_init(folder: str | Path, *, name: str = "Headstart test signer", days: int = 365) -> dict[str, str]:
    """Create a private certificate authority and a signer's certificate for testing.

    Writes ``ca.pem``, ``chain.pem`` and ``key.pem`` (readable by the owner only). The authority's key is not kept.

    Args:
        name: common name of the signer.
        days: validity from now on.

    Returns:
        ``folder, certificate, key, authority, note``.

    Raises:
        InputError: the folder exists or cannot be written, or the package ``cryptography`` is missing.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists; give a folder that does not, so that no key is overwritten")
    authority_key, authority = _authority(f"{name} authority", days)
    private, leaf = _leaf(name, days, authority_key, authority)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
        (partial / "ca.pem").write_text(_pem([authority]))
        (partial / "chain.pem").write_text(_pem([leaf, authority]))
        descriptor = os.open(partial / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_key_pem(private))
        os.replace(partial, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give a folder that can") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {
        "folder": str(folder),
        "certificate": str(folder / "chain.pem"),
        "key": str(folder / "key.pem"),
        "authority": str(folder / "ca.pem"),
        "note": AFTERWARDS,
    }


# --- making ---------------------------------------------------------------------------------------------------------


def _authority(name: str, days: int) -> tuple[EllipticCurvePrivateKey, x509_types.Certificate]:
    """Key and self-signed certificate of an authority."""
    from cryptography.hazmat.primitives.asymmetric import ec

    x509 = _x509()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _dated(subject, subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(x509, certificates=True), critical=True)
    return key, _issued(builder.add_extension(identifier, critical=False), key)


def _leaf(
    name: str,
    days: int,
    authority_key: EllipticCurvePrivateKey,
    authority: x509_types.Certificate,
    purpose: str = "1.3.6.1.5.5.7.3.4",
) -> tuple[EllipticCurvePrivateKey, x509_types.Certificate]:
    """Key and certificate of a signer."""
    from cryptography.hazmat.primitives.asymmetric import ec

    x509 = _x509()
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _dated(_subject(name), authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(x509, certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), critical=False)
    builder = builder.add_extension(own, critical=False).add_extension(issuer, critical=False)
    return key, _issued(builder, authority_key)


def _dated(
    subject: x509_types.Name, issuer: x509_types.Name, public_key: EllipticCurvePublicKey, days: int
) -> x509_types.CertificateBuilder:
    x509, now = _x509(), datetime.now(timezone.utc)
    # A negative number of days makes a certificate that has expired; an hour back allows for clocks that differ.
    start, end = sorted((now - timedelta(hours=1), now + timedelta(days=days)))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)


def _issued(builder: x509_types.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509_types.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _subject(name: str) -> x509_types.Name:
    from cryptography.x509.oid import NameOID

    x509 = _x509()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Headstart, for testing"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _usage(x509: ModuleType, certificates: bool) -> x509_types.KeyUsage:
    """An authority signs certificates, a leaf signs files."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


# --- checking -------------------------------------------------------------------------------------------------------


def _certificates(path: Path) -> list[x509_types.Certificate]:
    x509 = _x509()
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the certificate chain as a PEM file, leaf first") from None
    except ValueError:
        raise InputError(
            f"{path}: holds no certificate; give the certificate chain as a PEM file, leaf first"
        ) from None


def _private_key(path: Path) -> PrivateKeyTypes:
    _x509()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the private key as a PEM file") from None
    except TypeError:
        raise InputError(f"{path}: the key is protected by a password; give it without one (openssl pkcs8)") from None
    except ValueError:
        raise InputError(f"{path}: holds no private key; give the private key as a PEM file") from None


def _check_fit(leaf: x509_types.Certificate, private: PrivateKeyTypes, chain: Path, key: Path) -> None:
    if leaf.public_key() != private.public_key():
        raise InputError(
            f"{key}: the key does not fit the first certificate of {chain} ({leaf.subject.rfc4514_string()}); "
            "give the key that it was issued for, and the leaf as the first certificate of the chain"
        )


def _check_dates(leaf: x509_types.Certificate, chain: Path) -> None:
    now = datetime.now(timezone.utc)
    if now > leaf.not_valid_after_utc:
        raise InputError(
            f"{chain}: the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it "
            "(for testing: headstart sign-init DIR)"
        )
    if now < leaf.not_valid_before_utc:
        raise InputError(
            f"{chain}: the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check the clock"
        )


def _check_purpose(leaf: x509_types.Certificate, chain: Path) -> None:
    x509 = _x509()
    try:
        usages = [usage.dotted_string for usage in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]
    except x509.ExtensionNotFound:
        usages = []
    if not PURPOSES.keys() & set(usages):
        found = ", ".join(usages) or "no purpose at all"
        raise InputError(
            f"{chain}: the certificate is for {found}, expected one of {', '.join(PURPOSES.values())}; "
            "give a certificate for signing (for testing: headstart sign-init DIR)"
        )
    if leaf.issuer == leaf.subject:
        raise InputError(
            f"{chain}: the certificate signed itself, which verifiers refuse; give one that an authority issued "
            "(for testing: headstart sign-init DIR)"
        )


def _algorithm(private: object, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey) and private.key_size in (256, 384, 521):
        return {256: "es256", 384: "es384", 521: "es512"}[private.key_size]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return "ps256"
    raise InputError(f"{path}: a key of this kind cannot sign; expected EC P-256/384/521, Ed25519 or RSA of 2048 bits")


def _pem(certificates: list[x509_types.Certificate]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def _key_pem(private: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _x509() -> ModuleType:
    try:
        from cryptography import x509
    except ImportError:
        raise InputError(f"signing needs the package cryptography, which is not installed; {INSTALL}") from None
    return x509
