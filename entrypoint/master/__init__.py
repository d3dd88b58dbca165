"""The shell around the core: everything that talks to the kernel, and the loop that ties the two together."""
