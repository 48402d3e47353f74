"""The sample and the shard as bytes: schema, codecs, index, catalogue."""
