"""One replica of a model: its worker is started, watched, restarted."""
