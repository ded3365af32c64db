"""Who may do what: decided here, for every front alike, from what the front says about who asks."""
