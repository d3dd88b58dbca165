"""What Prometheus and Grafana need to watch masters: `python -m monitoring` writes all of it."""
