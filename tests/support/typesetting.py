"""A TeX engine, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path


def typeset(packages: str, body: str, bib: str = "") -> str | None:
    """What the engine printed about a document; ``None`` without an engine. ``bib``: references, printed behind ``body``.

    ``pdflatex`` (with ``bibtex``) or ``tectonic``, whichever is on the path. Anything that stops the engine is a failure.
    """
    pdflatex, bibtex, tectonic = (shutil.which(n) for n in ("pdflatex", "bibtex", "tectonic"))
    if pdflatex is None and tectonic is None:
        return None
    behind = "\\bibliographystyle{plain}\n\\bibliography{r}\n" if bib and (tectonic or bibtex) else ""
    source = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\n{behind}\\end{{document}}\n"
    once = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "t.tex"] if pdflatex else [tectonic, "--keep-logs", "t.tex"]
    commands = [once, [bibtex, "t"], once, once] if behind and pdflatex else [once]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t.tex").write_text(source, encoding="utf-8")
        (Path(folder) / "r.bib").write_text(bib, encoding="utf-8")
        for command in commands:
            done = subprocess.run(
                [str(c) for c in command], cwd=folder, capture_output=True, text=True, errors="replace", check=False
            )
            assert done.returncode == 0, done.stdout[-3000:]
        return (Path(folder) / "t.log").read_text(encoding="utf-8", errors="replace")
