"""What the master decides: a pure function of state, event and time.

Nothing in this package does I/O, reads a clock or knows a pid. The shell (`entrypoint.master`) tells it facts
(`events`) and carries out its orders (`actions`); `step` is the only way in.
"""
