"""What the tests share: scenes, samples, fake trackers, an S3 server with faults."""
