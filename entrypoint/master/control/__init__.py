"""What people ask a running master, and the answers."""
