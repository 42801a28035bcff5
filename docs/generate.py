"""Pages of the site that follow from the code: a hook of MkDocs, which writes nothing to the disk.

A page holds lines ``<!-- generate: NAME ARGUMENTS -->``; each is replaced by what the function of that name in ``PARTS`` returns.
Cards of methods and data sets (their README files) become pages of their own.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"^<!-- generate: (.+?) -->$", re.MULTILINE)
WIDTH = 96  # columns of help texts


# -- hooks of MkDocs ---------------------------------------------------------------------------------------------------
def on_config(config: Any) -> Any:
    """The pages of methods and data sets go into the navigation, below the section of their name."""
    cards = card_pages()
    for entry in config.nav:
        for folder, title in (("methods", "Methods"), ("datasets", "Data sets")):
            if title in entry:
                entry[title] = [f"{folder}/index.md", *(uri for uri in cards if uri.startswith(f"{folder}/"))]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of methods and data sets."""
    from mkdocs.structure.files import File

    for uri, text in card_pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the generated parts."""
    text = re.sub(
        "^```console", "```bash", spaced(expand(markdown)), flags=re.MULTILINE
    )  # commands without prompts are no output
    return text


# -- text --------------------------------------------------------------------------------------------------------------
def expand(markdown: str) -> str:
    """``markdown`` with its generated parts filled in.

    Raises
    ------
    KeyError : a marker names no part.
    """

    def part(found: re.Match[str]) -> str:
        name, *arguments = shlex.split(found[1])
        return PARTS[name](*arguments)

    return MARKER.sub(part, markdown)


def spaced(markdown: str) -> str:
    """With a blank line before lists, tables and fences that follow a paragraph, as Markdown proper wants it."""
    found: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        before = found[-1] if found else ""
        fence = line.startswith("```")
        begins = (fence and not fenced) or re.match(r"([-*] |\d+\. |\|)", line)
        follows = before and not before[0].isspace() and not re.match(r"([-*] |\d+\. |\||```|#|<!--)", before)
        if begins and follows and not fenced:
            found.append("")
        fenced ^= fence
        if line.startswith("|") and not fenced:  # bars in code are escaped for other renderers; here they need not be
            line = re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)
        found.append(line)
    return "\n".join(found)


def fence(language: str, text: str, title: str = "") -> str:
    """A code block."""
    head = f'{language} title="{title}"' if title else language
    return f"```{head}\n{text.rstrip()}\n```"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ("---",) * len(head), *(tuple(c.replace("|", "\\|").replace("\n", " ") for c in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page_text(path: Path) -> str:
    """A page of ``docs/`` as it is built."""
    return expand(path.read_text(encoding="utf-8"))


# -- parts -------------------------------------------------------------------------------------------------------------
def readme(title: str) -> str:
    """A section of the README, without its heading; files that it names get their name as a title."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise KeyError(f"README.md has no section {title!r}")
    return titled(found[1]).strip()


def titled(markdown: str) -> str:
    """Python blocks after the words "in a file `NAME`:" get the name as their title."""
    return re.sub(r"(in a file `([\w.]+)`:\n\n```python)\n", r'\1 title="\2"\n', markdown)


def source(where: str) -> str:
    """A class or function of the code, ``module:Name``, as it stands there (read, not imported)."""
    module, _, name = where.partition(":")
    file = ROOT / (module.replace(".", "/") + ".py")
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            return fence("python", "\n".join(text.split("\n")[first - 1 : node.end_lineno]), module)
    raise KeyError(f"{module} has no {name!r}")


def scaffold(kind: str, name: str, *wanted: str) -> str:
    """What ``mrbench new KIND NAME`` writes: its one file, or the modules of its package that are named."""
    from mrbench.scaffold import KINDS, choose_names, make

    with tempfile.TemporaryDirectory() as folder:
        made = make(choose_names(next(k for k in KINDS if k == kind), name, registry()), Path(folder), package=bool(wanted))
        files = [next(f for f in made.written if f.name == w and "src" in f.parts) for w in wanted] or [made.place]
        blocks = [fence("python", f.read_text(encoding="utf-8"), str(f.relative_to(folder))) for f in files]
    return "\n\n".join(blocks)


def command_line() -> str:
    """Every command with its help."""
    parts = []
    for words, command in commands():
        context = command.context_class(command, info_name=" ".join(words), max_content_width=WIDTH, terminal_width=WIDTH)
        level = "#" * min(len(words), 3) if len(words) > 1 else "##"
        parts.append(f"{level} {' '.join(words)}\n\n{fence('text', command.get_help(context))}")
    return "\n\n".join(parts)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the program with its words, groups before what is in them."""
    import typer

    from mrbench.cli.main import app

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk((*words, name), inner)

    yield from walk(("mrbench",), typer.main.get_command(app))


def hooks() -> str:
    """Every hook with its signature and what its docstring says."""
    tree = ast.parse((ROOT / "mrbench" / "hookspecs.py").read_text(encoding="utf-8"))
    parts = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "hookspec" for d in node.decorator_list):
            signature = (
                f"def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else 'None'}: ..."
            )
            words = (ast.get_docstring(node) or "").replace("``", "`")
            parts.append(f"## {node.name}\n\n{fence('python', signature)}\n\n{words}")
    return "\n\n".join(parts)


def protocols() -> str:
    """Every named protocol: summary, hash, rules in words, metrics, assumptions."""
    from mrbench.protocol import named_protocols, resolve
    from mrbench.report.protocol_words import degradation_sentence, noise_sentence, preparation_sentences

    parts = []
    for name, protocol in sorted(named_protocols().items(), key=lambda p: not p[0].startswith("uniform")):
        resolved = resolve(protocol, registry())
        rules = resolved.rules
        sentences = [*preparation_sentences(rules["preparation"]), degradation_sentence(rules), noise_sentence(rules)]
        parts += [
            f"## {name}",
            f"{protocol.summary} Version {protocol.version}, hash `{resolved.hash}`.",
            " ".join(s for s in sentences if s),
            "Metrics: " + ", ".join(f"`{m}`" for m in protocol.metrics) + ".",
            "Assumptions:",
            "\n".join(f"- {a}" for a in protocol.assumptions),
        ]
    return "\n\n".join(parts)


def metrics() -> str:
    """Every metric, then the signatures at default options."""
    cards = built_in("metrics")
    rows = [
        (
            f"`{c.name}`",
            c.summary,
            "higher" if c.higher_is_better else "lower",
            "yes" if c.foreground else "no",
            str(c.min_side),
        )
        for c in cards
    ]
    head = ("metric", "what", "ranked as better", "`_fg` column", "least side in pixels")
    return table(head, rows) + "\n\n" + "\n".join(f"- `{c.signed(c.options())}`" for c in cards)


def degradations() -> str:
    """Every degradation."""
    rows = [
        (f"`{c.name}`", c.summary, ", ".join(f"{d}-D" for d in c.ndim), "yes" if c.linear else "no", str(c.version))
        for c in built_in("degradations")
    ]
    return table(("degradation", "what", "works in", "linear", "version"), rows)


def methods() -> str:
    """Every method, with a link to its page."""
    pages = page_of("methods")
    rows = []
    for card in built_in("methods"):
        scales = "any" if card.scales is None else ", ".join(f"{s}x" for s in card.scales)
        calls = "" if card.nfe is None else str(card.nfe)
        rows.append((f"[`{card.name}`]({pages[card.name]})", card.summary, scales, calls, weights_of(card)))
    return table(("method", "what", "scales", "network calls a slice", "weights"), rows)


def weights_of(card: Any) -> str:
    """Tier and scale of the checkpoints that a method's card names."""
    if card.nfe is None:
        return "none needed"
    named = {f"{c.tier}, {f'{c.scale}x' if c.scale else 'any scale'}" for c in card.checkpoints}
    return "; ".join(sorted(named)) or "bring your own"


def datasets() -> str:
    """Every data set, with a link to its page."""
    pages = page_of("datasets")
    rows = [
        (f"[`{c.name}`]({pages[c.name]})", c.summary, c.licence, c.access, c.redistribution, c.split_rule)
        for c in built_in("datasets")
    ]
    return table(("data set", "what", "licence", "access", "redistribution", "split"), rows)


PARTS: dict[str, Callable[..., str]] = {
    "readme": readme,
    "source": source,
    "scaffold": scaffold,
    "cli": command_line,
    "hooks": hooks,
    "protocols": protocols,
    "metrics": metrics,
    "degradations": degradations,
    "methods": methods,
    "datasets": datasets,
}


# -- cards -------------------------------------------------------------------------------------------------------------
_CACHE: dict[str, Any] = {}


def registry() -> Any:
    """The plugins of this installation."""
    if "registry" not in _CACHE:
        from mrbench.plugins import discover

        _CACHE["registry"] = discover()
    return _CACHE["registry"]


def built_in(shelf: str) -> list[Any]:
    """The cards that come with mrbench, by name."""
    cards = getattr(registry(), shelf)
    return [cards.card(n) for n in cards.names() if not cards.code(n)]


def folder_of(card: Any) -> str:
    """The folder of a card's plugin: ``package.FOLDER.module:Name``."""
    return str(card.implementation).split(".")[1]


def page_of(shelf: str) -> dict[str, str]:
    """Card -> page, relative to the index of the shelf."""
    return {c.name: f"{folder_of(c)}.md" for c in built_in(shelf)}


def card_pages() -> dict[str, str]:
    """Page -> text: the README of every method and data set, then its cards as the command prints them."""
    if "pages" not in _CACHE:
        pages: dict[str, str] = {}
        for shelf in ("methods", "datasets"):
            for file in sorted((ROOT / shelf).glob("*/README.md")):
                cards = [c for c in built_in(shelf) if folder_of(c) == file.parent.name]
                parts = [file.read_text(encoding="utf-8").rstrip(), *(card_text(shelf, c) for c in cards)]
                pages[f"{shelf}/{file.parent.name}.md"] = "\n\n".join(parts) + "\n"
        _CACHE["pages"] = pages
    return dict(_CACHE["pages"])


def card_text(shelf: str, card: Any) -> str:
    """A card as YAML."""
    import yaml

    from mrbench.cli.listing import describe

    shown = {k: v for k, v in describe(card).items() if v not in (None, "", [], {}, ())}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=None)
    return f"## Card of {card.name}\n\n`mrbench {shelf} {card.name}` prints:\n\n{fence('yaml', text)}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(spaced(page_text(Path(argument))))
