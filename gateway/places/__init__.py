"""Where a worker is started: on this machine, by fork servers."""
