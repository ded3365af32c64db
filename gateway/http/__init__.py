"""The HTTP front: translates requests and answers, decides nothing."""
