"""The stored form of samples and shards: schema, codecs, index, catalogue."""
