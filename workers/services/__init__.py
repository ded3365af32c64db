"""Services that users write: the classes, how they are found and loaded, how they answer."""
