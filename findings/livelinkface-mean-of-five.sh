#!/usr/bin/env bash
# Guess: PyLiveLinkFace.set_blendshape(JawOpen, 1.0) sends a weight of 1.0 to Unreal.
# Behaviour: by default it stores the mean of the last five calls, and the very first call counts a zero that nobody
#   set: 1.0 is sent as 0.5. Lips that meet for one frame (p, b, m) are sent as 0.2, two frames late, spread over five.
#   The window is of calls, not of time, so 60 frames a second are filtered otherwise than 25.
# Why it matters to a user of this field: generated or tracked ARKit weights of a talking head look well synchronised in
#   every preview and have mushy lips in the engine. Pass no_filter=True, as the last argument of each call.
# Versions: PyLiveLinkFace 0.1, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check PyLiveLinkFace==0.1

venv/bin/python - <<'EOF'
from pylivelinkface import FaceBlendShape, PyLiveLinkFace


def sent(weights, **options):
    """The weights as a receiver decodes them, one packet a frame."""
    face, found = PyLiveLinkFace(fps=25), []
    for weight in weights:
        face.set_blendshape(FaceBlendShape.MouthClose, weight, **options)
        _, received = PyLiveLinkFace.decode(face.encode())
        found.append(round(received.get_blendshape(FaceBlendShape.MouthClose), 3))
    return found


closure = [0.0] * 6 + [1.0] + [0.0] * 6
first, filtered, plain = sent([1.0]), sent(closure), sent(closure, no_filter=True)
print("set first     : [1.0]")
print("received      :", first)
print("set           :", closure)
print("received      :", filtered)
print("no_filter=True:", plain)
if not (first == [0.5] and max(filtered) == 0.2 and filtered.count(0.2) == 5 and plain == closure):
    raise SystemExit("Changed: set_blendshape() sends the weights that it is given.")
EOF
