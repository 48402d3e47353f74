"""Who a synthetic talker is: shape, skin, hair, clothes, room, voice and manner, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.synthetic.motion import Manner, sample_manner
from shards.synthetic.speech.voice import VoiceStyle, sample_voice

HAIR_STYLES = ("bald", "buzz", "short", "side", "curly", "afro", "bob", "long", "wavy", "bun")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
TOPS = ("tee", "vneck", "shirt", "turtleneck", "hoodie", "stripes")
BACKGROUNDS = ("plain", "gradient", "shelf", "window", "bokeh")

# Display RGB of skin from light to dark; tones between neighbours are interpolated.
_SKIN = np.array([(238, 194, 170), (228, 174, 144), (209, 151, 117), (184, 124, 91), (142, 94, 67), (106, 70, 52)])
_SKIN = np.concatenate([_SKIN, [(78, 51, 41)]]) / 255
_HAIR = {
    "black": (22, 18, 17), "dark": (45, 32, 25), "brown": (84, 56, 38), "auburn": (112, 58, 34),
    "red": (156, 78, 36), "blond": (196, 156, 98), "ash": (150, 132, 108),
}  # fmt: skip
_IRIS = {
    "brown": (92, 56, 30),
    "dark": (52, 32, 20),
    "hazel": (120, 92, 48),
    "green": (96, 116, 76),
    "blue": (92, 126, 158),
    "grey": (120, 132, 140),
}
_CLOTH = (
    (34, 40, 56),
    (120, 36, 42),
    (228, 226, 218),
    (52, 84, 70),
    (66, 102, 150),
    (30, 30, 32),
    (196, 160, 88),
    (142, 92, 124),
    (98, 110, 112),
    (214, 122, 84),
)
_WALL = (
    (196, 200, 198),
    (172, 180, 190),
    (206, 190, 170),
    (120, 134, 138),
    (90, 98, 112),
    (182, 196, 184),
    (152, 136, 128),
    (60, 66, 76),
)


@dataclass(frozen=True)
class Identity:
    """One invented person. Colours are display RGB in [0, 1]; `shape` are rig identity coefficients ``[K_id]``."""

    seed: int
    name: str
    shape: np.ndarray
    female: float  # 0 .. 1: moves voice, brows, beard and hair towards typical values
    age: float  # years
    skin: np.ndarray
    redness: float
    freckles: float
    lips: float  # how much darker and redder than the skin
    iris: np.ndarray
    hair: str
    hair_color: np.ndarray
    brow: float  # thickness, 1 = usual
    beard: str
    glasses: bool
    top: str
    cloth: np.ndarray
    cloth2: np.ndarray
    background: str
    wall: np.ndarray
    shoulders: float
    voice: VoiceStyle
    manner: Manner


def _rgb(color: tuple[float, ...]) -> np.ndarray:
    return np.array(color, dtype=np.float64) / 255


def sample_identity(seed: int, n_identity: int, shape_scale: float = 0.65) -> Identity:
    """The person with this seed: same seed, same person. n_identity: number of shape coefficients of the rig."""
    rng = np.random.default_rng([seed, 0x1DE])
    female = float(np.clip(rng.normal(0.9 if rng.random() < 0.5 else 0.1, 0.12), 0, 1))
    age = float(rng.triangular(18, 32, 74))
    tone = rng.uniform(0, len(_SKIN) - 1.001)
    low = int(tone)
    skin = _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low])
    fair = max(0.0, 1 - tone / 3.2)
    colors = ["black", "dark", "brown", "auburn", "red", "blond", "ash"]
    weights = np.array([0.9, 0.9, 0.9 * fair, 0.5 * fair, 0.35 * fair, 0.8 * fair, 0.5 * fair]) + 1e-3
    color = str(rng.choice(colors, p=weights / weights.sum()))
    grey = float(np.clip((age - 44) / 28 + rng.normal(0, 0.25), 0, 1)) if age > 38 else 0.0
    hair_color = (1 - 0.85 * grey) * _rgb(_HAIR[color]) + 0.85 * grey * _rgb((186, 184, 182))
    if female > 0.5:
        styles = {
            "long": 3,
            "wavy": 2.5,
            "bob": 2.5,
            "bun": 2,
            "short": 0.6,
            "curly": 1,
            "afro": 1.0 if tone > 3 else 0.0,
        }
    else:
        styles = {
            "short": 3,
            "side": 2.5,
            "buzz": 1.5,
            "bald": 1 + age / 50,
            "curly": 1.2,
            "long": 0.4,
            "afro": 1.0 if tone > 3 else 0.0,
        }
    p = np.array(list(styles.values()))
    beard_p = np.array([0.40, 0.22, 0.08, 0.12, 0.18]) if female < 0.5 else np.array([1.0, 0, 0, 0, 0])
    eyes = list(_IRIS)
    eye_p = np.array([1.0, 0.8, 0.5 * fair, 0.5 * fair, 0.9 * fair, 0.5 * fair]) + 1e-3
    cloth = rng.permutation(len(_CLOTH))
    shape = shape_scale * np.clip(rng.standard_normal(n_identity), -2, 2)
    return Identity(
        seed=seed,
        name=f"synthetic-{seed:04d}",
        shape=shape.astype(np.float32),
        female=female,
        age=age,
        skin=np.clip(skin * (1 + 0.02 * rng.standard_normal(3)), 0, 1),
        redness=float(rng.uniform(0.4, 1.2)),
        freckles=float(rng.uniform(0.3, 1.0)) if fair > 0.3 and rng.random() < 0.3 else 0.0,
        lips=float(rng.uniform(0.5, 1.0) + (0.5 * rng.random() if female > 0.5 else 0)),
        iris=_rgb(_IRIS[str(rng.choice(eyes, p=eye_p / eye_p.sum()))]),
        hair=str(rng.choice(list(styles), p=p / p.sum())),
        hair_color=hair_color * rng.uniform(0.85, 1.15),
        brow=float(rng.uniform(0.75, 1.1) if female > 0.5 else rng.uniform(0.95, 1.4)),
        beard=str(rng.choice(BEARDS, p=beard_p)),
        glasses=bool(rng.random() < 0.22),
        top=str(rng.choice(TOPS)),
        cloth=_rgb(_CLOTH[cloth[0]]),
        cloth2=_rgb(_CLOTH[cloth[1]]),
        background=str(rng.choice(BACKGROUNDS)),
        wall=_rgb(_WALL[rng.integers(len(_WALL))]) * rng.uniform(0.85, 1.1),
        shoulders=float(rng.uniform(0.92, 1.02) if female > 0.5 else rng.uniform(1.0, 1.15)),
        voice=sample_voice(rng, female),
        manner=sample_manner(rng),
    )
