"""What a body may be beside V2, and the answers that belong to it."""
