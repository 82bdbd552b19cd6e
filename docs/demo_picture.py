"""Makes docs/images/demo.png anew: `.venv/bin/python docs/demo_picture.py` runs the demo and photographs its output.

Needs chromium. Arguments go to the demo; without any it takes 200 pictures. The checkout is shown as ~/tagmill.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "demo.png"
COLUMNS = 112
_REDRAWN = re.compile(r"\r|\x1b\[\d*[AK]|\x1b\[\?25[lh]")
_PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>{stylesheet}
body {{ background: #17181d; color: #d8d8d8; margin: 0 }}
pre {{ font: 15px/17.5px "DejaVu Sans Mono", monospace; padding: 22px 26px; margin: 0 }}</style><pre>{code}</pre>"""


def main() -> None:
    """Run, render, crop to the text's height."""
    environment = os.environ | {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm"}
    command = [sys.executable, "-m", "worker.cli", "demo", *sys.argv[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    text = done.stdout.decode().replace(str(ROOT), "~/tagmill")
    # Of a line that is drawn again and again (the bar), what stood there last.
    lines = [([part for part in _REDRAWN.split(line) if part] or [""])[-1] for line in text.rstrip("\n").split("\n")]
    screen = Console(width=COLUMNS + 8, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for line in lines:
        screen.print(Text.from_ansi(line), soft_wrap=True)
    page = screen.export_html(theme=MONOKAI, code_format=_PAGE)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "demo.html")
        source.write_text(page, encoding="utf-8")
        size = f"{52 + 9 * COLUMNS},{44 + 18 * (len(lines) + 1)}"
        quiet = ("background-networking", "component-update", "sync", "gpu")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", *(f"--disable-{name}" for name in quiet)]
        options += [f"--user-data-dir={folder}/profile", f"--window-size={size}", f"--screenshot={PICTURE}"]
        subprocess.run(["chromium", *options, source.as_uri()], check=True, capture_output=True)
    print(f"{PICTURE.relative_to(ROOT)}: look at it before you commit it")


if __name__ == "__main__":
    main()
