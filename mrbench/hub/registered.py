"""Weights files that a user has and named once with ``mrbench checkpoints add``: a JSON file in the user's data folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from mrbench.cards import Checkpoint
from mrbench.errors import UserError

DATA_VARIABLE = "MRBENCH_DATA"
FILE = "checkpoints.json"
FORMAT = 1
LOCK_SECONDS = 30

_RECORD: TypeAdapter[Checkpoint] = TypeAdapter(Checkpoint)


def data_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where mrbench keeps what a user told it: ``$MRBENCH_DATA``, else the user's data folder of the system."""
    given = (os.environ if environ is None else environ).get(DATA_VARIABLE)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("mrbench", appauthor=False)


@dataclass(frozen=True)
class RegisteredFiles:
    """The registered files by method. Several processes may add at once: changes are made under a lock, atomically."""

    file: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> RegisteredFiles:
        """The user's own."""
        return cls(data_folder(environ) / FILE)

    def all(self) -> dict[str, tuple[Checkpoint, ...]]:
        """Records by method (``UserError`` if the file is damaged). Fields of newer versions are passed over."""
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
            if not isinstance(document["format"], int) or document["format"] > FORMAT:
                raise UserError(
                    f"{self.file}: has the format {document['format']}, this mrbench reads {FORMAT}. Update mrbench."
                )
            return {m: tuple(map(_RECORD.validate_python, records)) for m, records in document["checkpoints"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, ValidationError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.file}: the list of registered checkpoints cannot be read ({reason}). Mend it, or delete it and add "
                "the files again with `mrbench checkpoints add`."
            ) from None

    def of(self, method: str) -> tuple[Checkpoint, ...]:
        """Records of one method, in the order of their names."""
        return tuple(sorted(self.all().get(method, ()), key=lambda r: r.name))

    def add(self, method: str, record: Checkpoint) -> None:
        """Store a record, instead of an earlier one of the same name."""
        with self._lock():
            known = self.all()
            kept = [r for r in known.get(method, ()) if r.name != record.name]
            self._write({**known, method: (*kept, record)})

    def remove(self, method: str, name: str) -> Checkpoint:
        """Forget a record; the file itself stays (``UserError`` if there is none of this name)."""
        with self._lock():
            known = self.all()
            found = next((r for r in known.get(method, ()) if r.name == name), None)
            if found is None:
                names = ", ".join(r.name for r in known.get(method, ())) or "none"
                raise UserError(f"method {method}: no registered file {name!r}. Registered: {names}.")
            self._write({**known, method: tuple(r for r in known[method] if r.name != name)})
        return found

    def _lock(self) -> AbstractContextManager[object]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.file.with_name(f".{self.file.name}.lock"), timeout=LOCK_SECONDS)

    def _write(self, records: Mapping[str, tuple[Checkpoint, ...]]) -> None:
        document = {"format": FORMAT, "checkpoints": {m: [asdict(r) for r in rs] for m, rs in sorted(records.items()) if rs}}
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=1, ensure_ascii=False)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
