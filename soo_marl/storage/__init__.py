"""Files on disk: guarded reading and writing, the directory of a study, its lock, tensors, records and tables."""
