"""The swap file: pages of keys and values on disk, which nobody else can read and nobody can change unnoticed.

Each slot is AES-256-GCM under a key that exists in this process only, with a random nonce of 96 bits beside it. The slot's number and
generation (how often it was written, kept in memory) are authenticated with it, so that a page of another slot, or an older one of the
same, is refused as a damaged one is. The file loses its name before its first byte is written: it ends with the process, however that ends.

Keys and values tell the text they were computed from, so this is as secret as the conversations themselves.
"""

import os
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .driver import RefusedError

_NONCE, _TAG = 12, 16
_BLOCK = 4096
"""Slots begin at multiples of this, as the blocks of a disk do."""


class DamagedPageError(Exception):
    """What lies in a slot is not what was written there."""


class SwapFile:
    """Slots of one size, that of the first page. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(_create(path), "r+b", buffering=0)
        self._cipher = AESGCM(AESGCM.generate_key(bit_length=256))
        self._generations: dict[int, int] = {}

    def write(self, slot: int, page: memoryview) -> None:
        """Put a page into a slot. After an error the slot is damaged."""
        generation = self._generations[slot] = self._generations.get(slot, 0) + 1
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, page, _context(slot, generation))
        written = os.pwritev(self._file.fileno(), [nonce, sealed], slot * _stride(page))
        if written != len(nonce) + len(sealed):  # the first that a disk says when it is nearly full
            raise OSError(f"only {written} of {len(nonce) + len(sealed)} bytes could be written to the swap file; is the disk full?")

    def read(self, slot: int, page: memoryview) -> None:
        """Get the page of a slot; after an error `page` is unchanged."""
        sealed = os.pread(self._file.fileno(), _NONCE + len(page) + _TAG, slot * _stride(page))
        try:
            page[:] = self._cipher.decrypt(sealed[:_NONCE], memoryview(sealed)[_NONCE:], _context(slot, self._generations.get(slot, 0)))
        except (InvalidTag, ValueError) as error:  # the latter: cut short
            raise DamagedPageError(f"the page in swap slot {slot} is damaged or was changed") from error

    def close(self) -> None:
        """Give the space on the disk back."""
        self._file.close()


def _create(path: Path) -> int:
    """A new file that has no name. What has this name already is in the way, except an empty file: we died between two lines."""
    if not path.name:
        raise RefusedError("a pool on disk needs a swap file")
    if path.is_file() and not path.is_symlink() and not path.stat().st_size:
        path.unlink()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return file


def _context(slot: int, generation: int) -> bytes:
    return struct.pack("<QQ", slot, generation)


def _stride(page: memoryview) -> int:
    return -(-(_NONCE + len(page) + _TAG) // _BLOCK) * _BLOCK
