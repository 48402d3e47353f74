"""Tracking of people in videos: landmarks, head pose, rig parameters, person matte and sound, as a stream."""

from shards.tracking.api import VideoTrack, detect_landmarks, track_frames, track_video
from shards.tracking.options import Refusal, TrackOptions
from shards.tracking.overlay import overlay
from shards.tracking.segments import Segment, Shot

__all__ = [
    "Refusal",
    "Segment",
    "Shot",
    "TrackOptions",
    "VideoTrack",
    "detect_landmarks",
    "overlay",
    "track_frames",
    "track_video",
]
