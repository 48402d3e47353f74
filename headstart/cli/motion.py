"""Options of commands in which a head moves or speaks: ``talk`` and ``export``."""

from __future__ import annotations

import argparse

from headstart.cli.parser import number

# What :func:`add_angles` and :func:`add_speech` add, and ``--pose`` and ``--blink``.
NAMES = ("yaw", "pitch", "roll", "pose", "blink", "style", "prior", "seed")


def add_angles(group: argparse._ArgumentGroup, does: str) -> None:
    """``--yaw``, ``--pitch`` and ``--roll``; ``does``: what one of them does to the head."""
    for angle in ("yaw", "pitch", "roll"):
        group.add_argument(f"--{angle}", type=number, help=f"degrees; {does}")


def add_control(group: argparse._ArgumentGroup) -> None:
    """``--control``, which may be repeated."""
    group.add_argument(
        "--control",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=AMOUNT",
        help="jaw, smile, brows_up, gaze_x, ...",
    )


def add_blink(group: argparse._ArgumentGroup) -> None:
    """``--blink``."""
    group.add_argument(
        "--blink",
        default="natural",
        help="natural, none, clip (as in the training clip), or a fixed eyelid closure from 0 to 1",
    )


def add_speech(group: argparse._ArgumentGroup) -> None:
    """``--style``, ``--prior`` and ``--seed``."""
    group.add_argument("--style", help="speaking style: 'own', 'mean' or a .npy file")
    group.add_argument(
        "--prior", metavar="URI", help="audio-expression prior that drives the avatar (default: the avatar's own)"
    )
    group.add_argument("--seed", type=int, default=0)


def options(a: argparse.Namespace, *more: str) -> dict[str, object]:
    """The values of :data:`NAMES` and of further options, by name."""
    return {name: getattr(a, name) for name in (*NAMES, *more)}
