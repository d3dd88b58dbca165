"""What the kernel offers, as small functions. Knows nobody."""
