"""Requests to workers: the queue, the credits, the socket."""
