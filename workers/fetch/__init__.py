"""Models from MLflow and ModelHub: the fetcher process, and loading by a script."""
