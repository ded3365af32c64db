"""From a new process to a loaded model: the fork server, and a worker's first steps."""
