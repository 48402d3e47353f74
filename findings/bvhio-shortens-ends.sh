#!/usr/bin/env bash
# Guess: a BVH file that is read as a hierarchy and written again keeps its skeleton; readAsBvh() and writeBvh() do.
# Behaviour: readAsHierarchy() forgets the End Sites, and writeHierarchy() makes new ones, 0.3 times as long as the offset of their joint,
#   whatever the file said: those of head and jaw go from 22 and 7.5 units to 2.7 and 3.1, and the chin is above its joint.
# Why it matters to a user of this field: head motion is exchanged as BVH, where the end of the head joint is the crown, and that of the jaw the
#   chin. After a trip through the library a head of 22 cm is 2.7 cm tall, and retargeting by the tips is wrong without a word.
# Versions: bvhio 1.5.4, pyglm 2.8.2, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check bvhio==1.5.4 pyglm==2.8.2

cat > head.bvh <<'BVH'
HIERARCHY
ROOT neck
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT head
  {
    OFFSET 0 9 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 22 0
    }
  }
  JOINT jaw
  {
    OFFSET 0 10 2
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -4.5 6
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 150 0 0 5 0 0 0 10 0 8 0
0 150 0 0 6 0 0 0 12 0 9 0
BVH

venv/bin/python - <<'EOF'
import re

import bvhio


def ends(path):
    return [tuple(float(x) for x in found) for found in re.findall(r"End Site\s*\{\s*OFFSET (\S+) (\S+) (\S+)", open(path).read())]


bvhio.writeHierarchy("hierarchy.bvh", bvhio.readAsHierarchy("head.bvh"), 0.04)
bvhio.writeBvh("plain.bvh", bvhio.readAsBvh("head.bvh"))
for name in ("head.bvh", "plain.bvh", "hierarchy.bvh"):
    print(f"{name:14s} ends of head and jaw: {ends(name)}")


def length(end):
    return sum(x * x for x in end) ** 0.5


kept = all(abs(length(a) - length(b)) < 1e-3 for a, b in zip(ends("head.bvh"), ends("plain.bvh")))
short = length(ends("hierarchy.bvh")[0]) < 5 and ends("hierarchy.bvh")[1][1] > 0
if not (kept and short):
    raise SystemExit("Changed: a hierarchy keeps the ends of its last joints, or the plain reader no longer does.")
EOF
