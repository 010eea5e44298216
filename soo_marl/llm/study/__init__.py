"""The language study: configuration, presets, shards, results."""
