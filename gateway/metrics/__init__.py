"""What a scrape shows."""
