"""The cluster room: runs and stores what it is given and knows no paper."""
