"""What workers say about themselves."""
