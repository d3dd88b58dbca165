"""Listening sockets: bound once, held, handed over, changed while workers use them."""
