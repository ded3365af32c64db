"""The request loop: what is predicted together, and when."""
