"""The observer: a helper process of the master that serves HTTP: metrics, probes, the status, a page."""
