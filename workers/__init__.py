"""What runs in a model's environment: fork server, worker, MLflow loading, services; and the fetcher.

Python 3.8+, in other people's environments: imports the standard library, msgpack, orjson and
`protocol`; numpy, pandas, mlflow and whatever else the model brings only lazily.
"""
