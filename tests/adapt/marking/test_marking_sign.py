"""Signing: certificates that fit and that do not, manifests that verify, and what a change does to them."""

from __future__ import annotations

import json
import os
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from adapt.marking import certificates
from adapt.marking.certificates import Credentials, load_credentials, sign_init
from adapt.marking.detect import detect
from adapt.marking.sign import COMPOSITE, TRAINED, Claim, Ingredient, available, read_manifest, sidecar_of, sign_file
from configs import InputError

pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")
needs_library = pytest.mark.skipif(not available(), reason="c2pa-python is not installed (extra sign)")
STATEMENT = {"synthetic": True, "avatar": "ann", "statement": "Synthetic video made by ann"}
PLY = b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sign_init(tmp_path_factory.mktemp("certificates") / "signer")


@pytest.fixture(scope="module")
def signer(made: dict[str, str]) -> Credentials:
    credentials = load_credentials(made["certificate"], made["key"])
    assert credentials is not None
    return credentials


def claim(**fields: object) -> Claim:
    return Claim(**{"title": "a", "provenance": STATEMENT, "composite": False, **fields})


def mp4(path: Path) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 40 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def written(folder: Path, name: str) -> Path:
    """A small file of the kind that its name says."""
    path = folder / name
    if path.suffix == ".mp4":
        return mp4(path)
    if path.suffix == ".wav":
        import soundfile

        soundfile.write(path, np.zeros(1600, np.float32), 16_000)
    elif path.suffix == ".png":
        from PIL import Image

        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)
    else:
        path.write_bytes(PLY)
    return path


# --- certificates ---------------------------------------------------------------------------------------------------


def test_sign_init_makes_a_signer_whose_key_only_the_owner_reads(made: dict[str, str]) -> None:
    key = Path(made["key"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["ca.pem", "chain.pem", "key.pem"]
    assert "untrusted" in made["note"]
    assert "PRIVATE KEY" not in json.dumps(made)


def test_sign_init_never_overwrites(made: dict[str, str]) -> None:
    before = Path(made["key"]).read_bytes()
    with pytest.raises(InputError, match="exists"):
        sign_init(made["folder"])
    assert Path(made["key"]).read_bytes() == before


def test_credentials_do_not_show_their_key(signer: Credentials) -> None:
    assert "PRIVATE" not in repr(signer)
    assert signer.algorithm == "es256"


def test_credentials_come_from_the_environment(made: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(certificates.CERTIFICATE_VARIABLE, raising=False)
    monkeypatch.delenv(certificates.KEY_VARIABLE, raising=False)
    assert load_credentials() is None
    monkeypatch.setenv(certificates.CERTIFICATE_VARIABLE, made["certificate"])
    with pytest.raises(InputError, match="private key is missing"):
        load_credentials()
    monkeypatch.setenv(certificates.KEY_VARIABLE, made["key"])
    assert load_credentials() is not None


def issued(folder: Path, *, days: int = 365, purpose: str = "1.3.6.1.5.5.7.3.4") -> tuple[Path, Path]:
    """Chain and key of a certificate with these dates and this purpose."""
    authority_key, authority = certificates._authority("authority", 365)
    private, leaf = certificates._leaf("leaf", days, authority_key, authority, purpose)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_text(certificates._pem([leaf, authority]))
    key.write_text(certificates._key_pem(private))
    return chain, key


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expired on \d{4}-\d\d-\d\d"):
        load_credentials(*issued(tmp_path, days=-2))


def test_a_certificate_for_another_purpose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="emailProtection"):
        load_credentials(*issued(tmp_path, purpose="1.3.6.1.5.5.7.3.1"))


def test_a_key_that_does_not_fit_is_refused(tmp_path: Path, made: dict[str, str]) -> None:
    chain, _ = issued(tmp_path)
    with pytest.raises(InputError, match="does not fit"):
        load_credentials(chain, made["key"])


def test_a_certificate_that_signed_itself_is_refused(tmp_path: Path) -> None:
    authority_key, authority = certificates._authority("authority", 365)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(certificates._pem([authority]))
    key.write_text(certificates._key_pem(authority_key))
    with pytest.raises(InputError, match=r"no purpose at all|signed itself"):
        load_credentials(chain, key)


@pytest.mark.parametrize("which", ["chain", "key"])
def test_files_that_are_absent_or_no_pem_are_refused(tmp_path: Path, made: dict[str, str], which: str) -> None:
    for content, words in ((None, "No such file"), ("hello", "holds no")):
        path = tmp_path / f"{which}.pem"
        if content is not None:
            path.write_text(content)
        given = (path, made["key"]) if which == "chain" else (made["certificate"], path)
        with pytest.raises(InputError, match=words) as error:
            load_credentials(*given)
        assert str(path) in str(error.value)


def test_a_key_with_a_password_is_refused(tmp_path: Path, made: dict[str, str]) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    private = load_pem_private_key(Path(made["key"]).read_bytes(), None)
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(InputError, match="password"):
        load_credentials(made["certificate"], path)


# --- signing --------------------------------------------------------------------------------------------------------


def test_without_the_library_signing_says_what_to_install(
    tmp_path: Path, signer: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(InputError, match=r"headstart\[sign\]"):
        sign_file(written(tmp_path, "a.png"), signer, claim())


@needs_library
@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "a.png"])
def test_a_signed_file_carries_a_valid_manifest(tmp_path: Path, signer: Credentials, name: str) -> None:
    path = written(tmp_path, name)
    before = path.stat().st_size
    assert sign_file(path, signer, claim(watermark="fb49c7f7")) == path
    manifest = read_manifest(path)
    assert manifest is not None
    assert (manifest.state, manifest.source_type) == ("Valid", TRAINED)
    assert manifest.provenance["avatar"] == "ann"
    assert manifest.problems == ("signingCredential.untrusted",)
    assert path.stat().st_size - before < 6000
    assert os.listdir(tmp_path) == [name]


@needs_library
@pytest.mark.parametrize("name", ["a.ply", "a.glb", "a.usdc", "a.usdz", "a.spz"])
def test_an_exported_head_has_its_manifest_beside_it(tmp_path: Path, signer: Credentials, name: str) -> None:
    path = written(tmp_path, name)
    assert sign_file(path, signer, claim()) == sidecar_of(path)
    assert path.read_bytes() == PLY
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.synthetic
    path.write_bytes(PLY + b"changed")
    changed = read_manifest(path)
    assert changed is not None
    assert changed.state == "Invalid"
    assert not changed.synthetic


@needs_library
def test_real_parts_make_a_composite(tmp_path: Path, signer: Credentials) -> None:
    path = written(tmp_path, "a.mp4")
    sign_file(path, signer, claim(composite=True))
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.source_type == COMPOSITE


@needs_library
def test_ingredients_and_manifests_of_sources_are_kept(tmp_path: Path, signer: Credentials) -> None:
    import c2pa

    source = written(tmp_path, "source.mp4")
    sign_file(source, signer, claim(title="source"))
    path = written(tmp_path, "a.mp4")
    plain = written(tmp_path, "plain.wav")
    clip = Ingredient(title="training clip", sha256="ab" * 32, media_type="video/mp4")
    sign_file(path, signer, claim(ingredients=[clip], sources=[source, plain]))
    document = json.loads(c2pa.Reader(str(path)).json())
    assert len(document["manifests"]) == 2
    ingredients = document["manifests"][document["active_manifest"]]["ingredients"]
    assert {item["title"] for item in ingredients} == {"training clip", "source.mp4"}
    assert not any("thumbnail" in item for item in ingredients)
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.state == "Valid"


@needs_library
def test_a_changed_file_is_not_vouched_for(tmp_path: Path, signer: Credentials) -> None:
    path = written(tmp_path, "a.png")
    sign_file(path, signer, claim())
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.state == "Invalid"


@needs_library
def test_a_file_that_cannot_be_signed_is_left_as_it_is(tmp_path: Path, signer: Credentials) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(InputError, match="refuses to sign"):
        sign_file(path, signer, claim())
    assert path.read_bytes() == b"no video"
    assert os.listdir(tmp_path) == ["a.mp4"]
    other = tmp_path / "a.mkv"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be signed"):
        sign_file(other, signer, claim())
    with pytest.raises(InputError, match="no such file"):
        sign_file(tmp_path / "none.mp4", signer, claim())


@needs_library
@pytest.mark.parametrize("name", ["a.mp4", "a.ply"])
def test_detect_reads_the_signature(tmp_path: Path, signer: Credentials, name: str) -> None:
    path = written(tmp_path, name)
    sign_file(path, signer, claim())
    (row,) = detect([path])["files"]
    assert (row["synthetic"], row["avatar"], row["confidence"]) == (True, "ann", 0.99)
    assert row["marks"][0]["state"] == "valid"
    assert "Headstart test signer" in row["marks"][0]["detail"]


@needs_library
def test_an_unsigned_file_has_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, "a.mp4")) is None
    assert read_manifest(written(tmp_path, "a.ply")) is None
