#!/usr/bin/env bash
# Guess: signing a picture with c2pa adds a statement of where it comes from; the original is named by its hash.
# Behaviour: add_ingredient() puts a JPEG of the original, 1024 px wide, into the signed file, and sign() one of the picture
#   itself. A picture in which a face was covered, signed with the original as its parent, holds the uncovered face, and
#   grows from 0.8 to 145 kB here. A context with {"builder": {"thumbnail": {"enabled": false}}} leaves both out.
# Why it matters to a user of this field: provenance is what one adds to talking heads for the sake of the people in them. Covered,
#   cropped or replaced faces travel along in the manifest of every file that states its source honestly.
# Versions: c2pa-python 0.38.1, cryptography 50.0.2, Pillow 11.3.0, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check c2pa-python==0.38.1 cryptography==50.0.2 pillow==11.3.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import datetime
import io
import re

import c2pa
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image


def certificate(name, key, issuer, issuer_key, authority):
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o")])
             for n in (name, issuer)]
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
                           "decipher_only"), False)
    start = datetime.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        .add_extension(x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage), True)
    )
    if not authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
chain = certificate("leaf", key, "root", root_key, False) + certificate("root", root_key, "root", root_key, True)
secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
signer_info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=secret, ta_url=None)

y, x = np.mgrid[:256, :256]
face = np.stack([(x // 16 + y // 16) % 2 * 255, x, y], -1).astype(np.uint8)  # stands for the face
covered = np.full_like(face, 127)


def png(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def signed(settings):
    """The covered picture, signed as an edit of the original."""
    context = c2pa.Context.from_dict(settings, signer=c2pa.Signer.from_info(signer_info))
    builder, out = c2pa.Builder({"claim_generator_info": [{"name": "example", "version": "1"}]}, context=context), io.BytesIO()
    builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    builder.add_ingredient({"title": "original", "relationship": "parentOf"}, "image/png", io.BytesIO(png(face)))
    builder.sign("image/png", io.BytesIO(png(covered)), out)
    return out.getvalue()


def pictures(data):
    """Pictures in the manifest: (side in px, mean difference from the original in levels)."""
    found = []
    for match in re.finditer(b"\xff\xd8\xff", data):
        picture = Image.open(io.BytesIO(data[match.start() :])).convert("RGB")
        levels = np.asarray(picture.resize((256, 256)), float)
        found.append((picture.size[0], round(float(np.abs(levels - face).mean()), 1)))
    return found


plain, without = signed({}), signed({"builder": {"thumbnail": {"enabled": False}}})
print(f"covered picture            : {len(png(covered))} bytes")
print(f"signed                     : {len(plain)} bytes; pictures inside (side, difference from the original): {pictures(plain)}")
print(f"signed, thumbnails disabled: {len(without)} bytes; pictures inside: {pictures(without)}")
if not (any(difference < 10 for _, difference in pictures(plain)) and not pictures(without)):
    raise SystemExit("Changed: the original is not stored in the signed file.")
EOF
