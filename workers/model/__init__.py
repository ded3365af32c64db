"""A loaded model with its way in and its way out."""
