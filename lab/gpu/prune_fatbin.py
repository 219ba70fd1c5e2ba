"""Here, without a GPU: overwrite code of other GPUs and debug symbols in CUDA libraries, so that they compress well.

usage: prune_fatbin.py FILE.so ...      (changes the files; prints one line for each)

A CUDA library contains one "fat binary" per source file: the same kernels for several architectures, and PTX. The
driver reads the headers and loads the entry that fits the card best. If a fat binary contains machine code for
ARCHITECTURE, the payload of every other entry is overwritten with zeros. If it contains none, the card can only compile
the PTX of an older architecture; machine code of other generations and newer PTX are overwritten. Headers, sizes and
offsets stay. Sections that no loader maps (.symtab, .strtab, .debug_*) are overwritten as well.
"""

from __future__ import annotations

import mmap
import struct
import sys
from pathlib import Path

ARCHITECTURE = 90
MAGIC = struct.pack("<IH", 0xBA55ED50, 1)
PTX, ELF = 1, 2
ALLOCATED = 2


def entries(data: mmap.mmap, start: int, end: int) -> list[tuple[int, int, int, int]] | None:
    """Return kind, architecture, offset and length of each payload; None if this is not a fat binary."""
    out = []
    while start < end:
        if end - start < 64:
            return None
        kind, _version, header = struct.unpack_from("<HHI", data, start)
        (size,) = struct.unpack_from("<Q", data, start + 8)
        (architecture,) = struct.unpack_from("<I", data, start + 28)
        if kind not in (PTX, ELF) or not 64 <= header <= 512 or start + header + size > end:
            return None
        out.append((kind, architecture, start + header, size))
        start += header + size
    return out


def blank_symbols(data: mmap.mmap) -> int:
    """Overwrite the sections that only debuggers read, and return their size in bytes."""
    table, size, count, names = struct.unpack_from("<Q", data, 40) + struct.unpack_from("<HHH", data, 58)
    section = [struct.unpack_from("<IIQQQQ", data, table + index * size) for index in range(count)]
    total = 0
    for name, _, flags, _, place, length in section:
        start = section[names][4] + name
        text = data[start : data.find(b"\0", start)]
        if not flags & ALLOCATED and (text in (b".symtab", b".strtab") or text.startswith(b".debug")):
            data[place : place + length] = bytes(length)
            total += length
    return total


def prune(path: Path) -> str:
    """Overwrite what one library does not need, and return a line about it."""
    kept = blanked = broken = symbols = 0
    sizes: dict[tuple[int, int], int] = {}
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        if data[:5] == b"\x7fELF\x02":
            symbols = blank_symbols(data)
        at = data.find(MAGIC)
        while at >= 0:
            header, size = struct.unpack_from("<HQ", data, at + 6)
            found = entries(data, at + header, at + header + size) if header == 16 else None
            if found is None or at + header + size > len(data):
                broken += 1
                at = data.find(MAGIC, at + 4)
                continue
            for kind, architecture, _, length in found:
                sizes[kind, architecture] = sizes.get((kind, architecture), 0) + length
            ours = any(kind == ELF and architecture == ARCHITECTURE for kind, architecture, _, _ in found)
            for kind, architecture, place, length in found:
                needed = architecture == ARCHITECTURE if ours else architecture <= ARCHITECTURE
                if needed and kind == (ELF if ours else PTX):
                    kept += length
                else:
                    data[place : place + length] = bytes(length)
                    blanked += length
            at = data.find(MAGIC, at + header + size)
    mib = {
        f"{'ptx' if kind == PTX else 'sm_'}{architecture}": round(size / 2**20, 1)
        for (kind, architecture), size in sorted(sizes.items())
    }
    return f"{path.name}: kept {kept >> 20} MiB, blanked {blanked >> 20}, not read {broken}, symbols {symbols >> 20}; {mib}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(prune(Path(name)))
