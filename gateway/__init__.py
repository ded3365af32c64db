"""The gateway: one asyncio process that speaks HTTP to clients and ZeroMQ to workers.

It never imports a model, mlflow, pandas or numpy, and never parses a tensor. Read it in the order of
a request: `http/app`, `http/v2`, `models/registry`, `models/version`, `dispatch/dispatcher`, `dispatch/channel`;
and of a model's life: `server`, `models/version`, `supervision/replica`, `places/fork_servers`. Each folder
says in its `__init__.py` what it is for; which may import which is in pyproject.toml.
"""
