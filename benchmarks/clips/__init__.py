"""Building datasets: tracking, and sound in step with lips."""
