"""The gateway: one asyncio process that speaks HTTP to clients and ZeroMQ to workers.

It never imports a model, mlflow, pandas or numpy, and never parses a tensor. Read it in the order of
a request: `app`, `routes_v2`, `registry`, `model`, `dispatcher`, `channel`; and of a model's life:
`server`, `model`, `replica`, `fork_server`.
"""
