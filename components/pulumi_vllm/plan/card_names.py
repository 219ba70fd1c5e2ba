"""The catalogue's name of a GPU, from what an offer, the rental API or a person writes.

A card whose family also exists as a module on a board (SXM) is another GPU in any other form: less power, memory of
another speed or size, no NVLink between more than two. So the name without a form is the module's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pulumi_vllm.plan.suggestions import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODULES = {"A100", "H100", "H200", "V100"}
"""Families that are sold as SXM modules and as cards (NVIDIA's data sheets)."""
_SIZES_GB = {"A100": (40, 80), "V100": (16, 32)}
"""Families of which one form is sold with more than one size of memory."""
_CARDS = {"PCIE": "PCIe", "NVL": "NVL"}
_VENDOR = {"NVIDIA", "GEFORCE", "TESLA", "QUADRO"}
_RTX = re.compile(r"\bRTX[\s_-]*(PRO)?[\s_-]*(\d{4})[\s_-]*(ADA|TI|SUPER|D)?(?![A-Z])")


def card_name(text: str, memory_gb: int | None = None, link: str | None = None) -> str:
    """H200 for H200_SXM5, "H100 PCIe" for h100-pcie, "A100 80GB" for A100_80G_SXM4, "RTX 4090" for RTX4090_PCIE.

    Args:
        text: a name, in any spelling.
        memory_gb: memory of one GPU, for families with more than one size whose name does not tell.
        link: how the GPU is connected, where the name does not tell, such as PCIe.
    """
    upper = text.upper()
    if rtx := _RTX.search(upper):
        return " ".join(word for word in ("RTX", *rtx.groups()) if word)
    words = [word for word in re.split(r"[\s_-]+", upper) if word and word not in _VENDOR]
    family, *rest = words or [upper]
    if link:
        rest.append(link.upper())
    size = _size(family, rest, memory_gb)
    form = next((_CARDS[word] for word in rest if word in _CARDS and family in _MODULES), None)
    return " ".join(word for word in (family, size, form) if word)


def card_suggestion(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the known spelling, else all forms and sizes of the family, else a similar name."""
    names, spelled = list(known), card_name(name)
    if spelled in names:
        return f"write {spelled}"
    family = spelled.partition(" ")[0]
    of_family = [one for one in names if one.partition(" ")[0] == family and family != "RTX"]
    return f"write {' or '.join(of_family)}" if of_family else suggestion(name, names)


def _size(family: str, words: list[str], memory_gb: int | None) -> str | None:
    sizes = _SIZES_GB.get(family, ())
    written = (re.fullmatch(r"(\d+)G(B|IB)?", word) for word in words)
    known = next((int(found[1]) for found in written if found), memory_gb)
    if known is None or not sizes:
        return None
    return f"{min(sizes, key=lambda size: abs(size - known))}GB"
