"""Run the notebooks as scripts, with a ``display`` that keeps what it is shown."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run_notebook(name: str, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """The names a notebook leaves and what it displayed, its pictures drawn into the folder."""
    shown: list[Any] = []
    os.environ["NOTEBOOK_FOLDER"] = str(folder)
    try:
        names = runpy.run_path(str(NOTEBOOKS / f"{name}.py"), init_globals={"display": shown.append})
    finally:
        del os.environ["NOTEBOOK_FOLDER"]
    for place, figure in enumerate(one for one in shown if isinstance(one, Figure)):
        figure.savefig(folder / f"{name}_{place}.png")
    return names, shown
