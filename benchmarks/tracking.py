"""Tracking of real clips: time per frame, and the distance of the tracked rig from newly detected landmarks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import row, write
from heads.rig import load_rig
from heads.rig.facemesh import IRIS_LEFT, IRIS_RIGHT, LIPS_INNER, LIPS_OUTER
from shards.tracking import Segment, TrackOptions, detect_landmarks, track_video

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "clips"
NAMES = ("aoc", "cnn2_a", "french_a", "stock_coatwoman", "mead_m003_b", "katiehill", "noaudio_smilewoman")
SECONDS = 5.0


def main() -> None:
    """Tracks five seconds of each clip; figures are medians over the clips."""
    videos = [CLIPS / f"{name}.mp4" for name in NAMES if (CLIPS / f"{name}.mp4").exists()]
    if not videos:
        write("tracking", [], f"not run: no clips in {CLIPS}")
        return
    figures = [measure(path) for path in videos]
    median = {key: float(np.median([figure[key] for figure in figures])) for key in figures[0]}
    case = f"{len(videos)} clips of 512 or 320 px, {SECONDS:g} s each"
    rows = [
        row(case, "first pass: decoding, landmarks, cuts, faces", median["scan"], "CPU ms a frame", "4.3 for landmarks alone"),
        row(case, "second pass: decoding, matte, track", median["second"], "CPU ms a frame", "21 for a matte of every frame"),
        row(case, "both passes", median["scan"] + median["second"], "CPU ms a frame", "40 for real time on one core"),
        row(case, "rig against landmarks, all", median["all"], "px at 512, median"),
        row(case, "rig against landmarks, lips", median["lips"], "px at 512, median"),
        row(case, "rig against landmarks, middle of the irises", median["iris"], "px at 512, median"),
        row(case, "jitter of stable points, measured", median["before"], "px a frame^2"),
        row(case, "jitter of stable points, smoothed", median["after"], "px a frame^2", "measured",
            median["after"] / median["before"]),
        row(case, "range of the mouth's opening kept", median["mouth"], "share, 5 to 95 percentile", "1: nothing is smoothed away"),
    ]  # fmt: skip
    write("tracking", rows, "Landmarks of reference are detected again in every finished frame, without smoothing.")


def measure(path: Path) -> dict[str, float]:
    """The figures of one clip."""
    began = time.process_time()
    video = track_video(path, TrackOptions(seconds=SECONDS))
    scanned = time.process_time()
    segments: list[Segment] = []
    jitters = []
    for shot in video:
        segments += list(shot)
        jitters.append((len(shot), shot.jitter))
    finished = time.process_time()
    jitter = {key: np.average([j[key] for _, j in jitters], weights=[n for n, _ in jitters]) for key in jitters[0][1]}
    return {
        "scan": (scanned - began) / video.frames * 1e3,
        "second": (finished - scanned) / video.tracked_frames * 1e3,
        **jitter,
        **_agreement(segments),
    }


def _agreement(segments: list[Segment]) -> dict[str, float]:
    errors, openings = [], []
    for segment in segments:
        found, seen = detect_landmarks(segment.frames)
        scale = 512 / segment.frames.shape[1]
        errors.append(np.linalg.norm(_rig_pixels(segment.track) - found[..., :2], axis=-1)[seen] * scale)
        openings.append(np.stack([_opening(found), _opening(segment.track["landmarks"])], 1)[seen])
    error, opening = np.concatenate(errors), np.concatenate(openings)
    spread = np.quantile(opening, 0.95, axis=0) - np.quantile(opening, 0.05, axis=0)
    return {
        "all": float(np.median(error)),
        "lips": float(np.median(error[:, list(LIPS_INNER + LIPS_OUTER)])),
        "iris": float(np.median(error[:, [IRIS_LEFT[0], IRIS_RIGHT[0]]])),
        "mouth": float(spread[1] / spread[0]),
    }


def _rig_pixels(track: dict[str, np.ndarray]) -> np.ndarray:
    """Where the rig's landmarks (T, 478, 2) appear under the track."""
    arrays = {key: torch.from_numpy(value) for key, value in track.items()}
    vertices = load_rig().vertices(arrays["identity"][None], arrays["expression"], arrays["eyelids"], arrays["gaze"])
    camera = vertices[:, :478] @ arrays["rotation"].transpose(1, 2) + arrays["translation"][:, None]
    pixels = camera @ arrays["intrinsics"].T
    return (pixels[..., :2] / pixels[..., 2:]).numpy()


def _opening(landmarks: np.ndarray) -> np.ndarray:
    """Distance (T,) between the inner lips over the distance between the eyes."""
    eyes = np.linalg.norm(landmarks[:, IRIS_LEFT[0], :2] - landmarks[:, IRIS_RIGHT[0], :2], axis=-1)
    return np.linalg.norm(landmarks[:, 13, :2] - landmarks[:, 14, :2], axis=-1) / np.maximum(eyes, 1e-6)


if __name__ == "__main__":
    main()
