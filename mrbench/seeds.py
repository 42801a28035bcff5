"""Seeds that belong to the item, not to the moment: equal parts give equal seeds on every machine."""

from __future__ import annotations

import hashlib

SEED_BITS = 63


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed, the leading bits of the SHA-256 of an unambiguous encoding of ``parts``.

    Every part is written as type, length and text (``s3:abc``, ``i2:10``), so ``("ab", "c")``, ``("a", "bc")``, ``("1",)``
    and ``(1,)`` all differ. Measurement noise uses ``derive_seed(protocol_hash, item_id, "measurement")``, draw ``k``
    (from 1) of a sampler ``derive_seed(protocol_hash, item_id, k)``.

    Raises
    ------
    TypeError : a part is neither ``str`` nor ``int`` (``bool`` counts as neither), or there are no parts.
    """
    if not parts:
        raise TypeError("derive_seed needs at least one part")
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise TypeError(f"derive_seed takes str and int parts, got {type(part).__name__}")
        text = str(part).encode()
        digest.update(b"%s%d:%s" % (b"s" if isinstance(part, str) else b"i", len(text), text))
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - SEED_BITS)
