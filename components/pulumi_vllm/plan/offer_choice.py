"""The choice of an offer: which offers match a request, in order of preference, and why none does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.card_names import card_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pulumi_vllm.plan.offer import Offer

_EXAMPLES = 3


class NoOfferError(Exception):
    """No offer matches. The message says which condition failed and names the nearest offers."""


@dataclass(frozen=True, slots=True)
class OfferRequest:
    """The machine that is wanted, as far as it decides which offers match."""

    gpus: tuple[str, ...]
    """Accepted GPUs, the preferred one first."""
    count: int
    billings: tuple[str, ...]
    """Accepted ways of billing, the preferred one first."""
    region: str | None = None
    provider: str | None = None
    max_usd_per_hour: float | None = None
    with_volume: bool = True
    """Whether a volume must be mountable."""

    def __str__(self) -> str:
        gpus = " or ".join(self.gpus)
        machine = f"{self.count}x {gpus}" if self.count else gpus
        return f"{machine}, {' or '.join(self.billings)}"


def billing_order(billing: str, fallback: str | None) -> tuple[str, ...]:
    """Return the ways of billing that a stack file accepts, the preferred one first."""
    return (billing, fallback) if fallback else (billing,)


def matching(offers: Iterable[Offer], request: OfferRequest) -> list[Offer]:
    """Return the offers that match: the preferred billing first, then the preferred GPU, then the cheapest."""
    found = [offer for offer in offers if all(matches(offer, request) for matches, _ in _CONDITIONS)]
    names = [card_name(gpu) for gpu in request.gpus]

    def preference(offer: Offer) -> tuple[int, int, tuple[float, bool, str, str]]:
        return request.billings.index(offer.billing), names.index(offer.gpu), _price_order(offer)

    return sorted(found, key=preference)


def written(name: str, gpus: Iterable[str]) -> str:
    """Return the GPU of an offer as a stack file names it."""
    return next((gpu for gpu in gpus if card_name(gpu) == name), name)


def choose(offers: Iterable[Offer], request: OfferRequest) -> list[Offer]:
    """Return the offers that match, best first.

    Raises:
        NoOfferError: none matches.
    """
    listed = list(offers)
    found = matching(listed, request)
    if not found:
        raise NoOfferError(f"{request}: {_explain(listed, request)}")
    return found


def why_unmountable(provider: str, region: str) -> str:
    """Say why a volume of this provider cannot be mounted."""
    return f"nobody has published how {provider} mounts its NFS volumes in {region}; take another region"


def _explain(offers: list[Offer], request: OfferRequest) -> str:
    """Apply the conditions one after the other. The first one that leaves nothing is the reason."""
    if not offers:
        return "the cloud lists no offers at all; try later"
    remaining = offers
    for matches, reason in _CONDITIONS:
        left = [offer for offer in remaining if matches(offer, request)]
        if not left:
            return reason(remaining, request)
        remaining = left
    raise AssertionError(f"{request}: an offer matches")


# -- conditions: a test of one offer, and the reason when no offer passes it -----------------------------
def _of_provider(offer: Offer, request: OfferRequest) -> bool:
    return request.provider is None or offer.provider == request.provider


def _no_provider(offers: list[Offer], request: OfferRequest) -> str:
    providers = ", ".join(sorted({offer.provider for offer in offers}))
    return f"provider {request.provider} offers no machine today; there are {providers}"


def _is_gpu(offer: Offer, request: OfferRequest) -> bool:
    return offer.gpu in {card_name(gpu) for gpu in request.gpus}


def _no_gpu(offers: list[Offer], _request: OfferRequest) -> str:
    return f"no offer with this GPU; there are {', '.join(sorted({offer.gpu for offer in offers}))}"


def _has_count(offer: Offer, request: OfferRequest) -> bool:
    return offer.gpu_count == request.count


def _no_count(offers: list[Offer], request: OfferRequest) -> str:
    counts = ", ".join(map(str, sorted({offer.gpu_count for offer in offers})))
    return f"no offer with that many GPUs; {' or '.join(request.gpus)} comes with {counts}"


def _is_billed(offer: Offer, request: OfferRequest) -> bool:
    return offer.billing in request.billings


def _no_billing(offers: list[Offer], _request: OfferRequest) -> str:
    return f"no offer with this billing; {_nearest(offers)}"


def _is_available(offer: Offer, _request: OfferRequest) -> bool:
    return not offer.maintenance


def _all_in_maintenance(offers: list[Offer], _request: OfferRequest) -> str:
    return f"all {len(offers)} offers are in maintenance; try later, or take another GPU or billing"


def _in_region(offer: Offer, request: OfferRequest) -> bool:
    return request.region is None or offer.own_region(request.region) is not None


def _no_region(offers: list[Offer], request: OfferRequest) -> str:
    regions = sorted({region for offer in offers for region in offer.regions})
    return f"no offer in region {request.region}; there are {', '.join(regions)}"


def _takes_volume(offer: Offer, request: OfferRequest) -> bool:
    return offer.mountable or not request.with_volume


def _no_volume(offers: list[Offer], request: OfferRequest) -> str:
    return why_unmountable(offers[0].provider, request.region or offers[0].regions[0])


def _is_affordable(offer: Offer, request: OfferRequest) -> bool:
    return request.max_usd_per_hour is None or offer.usd_per_hour <= request.max_usd_per_hour


def _too_expensive(offers: list[Offer], request: OfferRequest) -> str:
    limit = request.max_usd_per_hour or 0
    return f"no offer within ${limit:.2f}/h; {_nearest(offers)}; raise max_usd_per_hour"


_Condition = tuple["Callable[[Offer, OfferRequest], bool]", "Callable[[list[Offer], OfferRequest], str]"]
_CONDITIONS: tuple[_Condition, ...] = (
    (_of_provider, _no_provider),
    (_is_gpu, _no_gpu),
    (_has_count, _no_count),
    (_is_billed, _no_billing),
    (_is_available, _all_in_maintenance),
    (_in_region, _no_region),
    (_takes_volume, _no_volume),
    (_is_affordable, _too_expensive),
)


def _price_order(offer: Offer) -> tuple[float, bool, str, str]:
    return offer.usd_per_hour, not offer.supports_cloud_init, offer.provider, offer.offer_id


def _nearest(offers: list[Offer]) -> str:
    examples = [
        f"${offer.usd_per_hour:.2f}/h {offer.billing} at {offer.provider} ({offer.regions[0]})"
        for offer in sorted(offers, key=_price_order)[:_EXAMPLES]
    ]
    return f"nearest: {', '.join(examples)}"
