"""What all fronts share: a request's way from its name to its model, and what models say of themselves."""
