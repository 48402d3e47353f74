"""Speech through an avatar: poses, blinks, whole videos and streams."""
