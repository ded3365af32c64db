"""The files of a model: where its URI leads, fetched once, kept on disk."""
