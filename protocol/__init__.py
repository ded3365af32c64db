"""What crosses a boundary: V2 requests and responses, messages between processes, errors.

Pure Python 3.8: it runs in the gateway and, handed over by path, in every model's own environment.
Imports nothing of ours and, besides the standard library, only msgpack and orjson.
"""
