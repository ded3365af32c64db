"""Bodies, files and tensors to what models take, and back."""
