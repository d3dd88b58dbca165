"""Writes what is generated, below the folder given or this one's: `python -m monitoring [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from monitoring import alerts, dashboard

FILES = {
    "helm/entrypoint/files/alerts.yaml": alerts.rules,
    "helm/entrypoint/files/dashboard.json": dashboard.model,
    "docs/ALERTS.md": alerts.page,
}


def main(folder: Path) -> None:
    """Write every file anew."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent))
