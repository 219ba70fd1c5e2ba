"""The choice of an offer: the order of preference, and the reason when no offer matches."""

import pytest
from pulumi_vllm.plan.offer import Offer
from pulumi_vllm.plan.offer_choice import NoOfferError, OfferRequest, billing_order, choose, matching
from pulumi_vllm.plan.pricing import cheapest


def offer(usd_per_hour=4.72, **changes):
    known = {
        "provider": "spheron-es",
        "offer_id": f"offer at {usd_per_hour}",
        "gpu_type": "H200_SXM5",
        "gpu": "H200",
        "gpu_count": 1,
        "gpu_memory_gb": 141,
        "usd_per_hour": usd_per_hour,
        "billing": "on-demand",
        "regions": ("US Central 1",),
        "operating_systems": ("Ubuntu 24.04",),
        "supports_cloud_init": True,
        "mount_kind": "virtiofs",
        "name": "1x H200",
        "maintenance": False,
        "minimum_runtime_min": 20,
    }
    return Offer(**known | changes)


def request(gpu="H200", count=1, billings=("on-demand",), **more):
    return OfferRequest((gpu,) if isinstance(gpu, str) else gpu, count, billings, **more)


def prices(offers):
    return [found.usd_per_hour for found in offers]


def test_the_cheapest_offer_comes_first_and_maintenance_is_left_out():
    assert prices(choose([offer(5), offer(3), offer(4, maintenance=True), offer(4)], request())) == [3, 4, 5]


def test_at_the_same_price_an_offer_with_cloud_init_comes_first():
    found = choose([offer(3, supports_cloud_init=False), offer(3, offer_id="b")], request())
    assert [one.offer_id for one in found] == ["b", "offer at 3"]


def test_the_fallback_billing_comes_second_whatever_it_costs():
    everything = [offer(3), offer(5, billing="spot"), offer(4, billing="spot")]
    wanted = request(billings=("spot", "on-demand"))
    assert prices(choose(everything, wanted)) == [4, 5, 3]
    assert prices(choose(everything[:1], wanted)) == [3]
    with pytest.raises(NoOfferError, match="1x H200, spot or on-demand: no offer within"):
        choose(everything, request(billings=("spot", "on-demand"), max_usd_per_hour=1.0))


def test_the_order_of_billing_has_the_fallback_last():
    assert billing_order("spot", "on-demand") == ("spot", "on-demand")
    assert billing_order("on-demand", None) == ("on-demand",)


@pytest.mark.parametrize("gpu", ["H200", "h200", "H200_SXM5", "h200-sxm5"])
def test_a_gpu_has_several_spellings(gpu):
    assert matching([offer()], request(gpu))


def test_a_machine_without_gpus_is_chosen_by_count_0():
    cpu = offer(gpu="CPU", gpu_type="CPU_GENOA", gpu_count=0)
    assert choose([cpu], request("CPU", 0)) == [cpu]


def test_only_offers_of_the_requested_provider_match():
    everything = [offer(1, provider="data-crunch"), offer(2)]
    assert prices(choose(everything, request(provider="spheron-es"))) == [2]
    with pytest.raises(
        NoOfferError, match="provider other offers no machine today; there are data-crunch, sph"
    ):
        choose(everything, request(provider="other"))


def test_an_offer_that_cannot_mount_volumes_matches_only_without_a_volume():
    park = {"provider": "voltage-park", "regions": ("us-east-virginia-1",), "mount_kind": "nfs"}
    everything = [offer(1, **park), offer(5)]
    assert prices(choose(everything, request(with_volume=False))) == [1, 5]
    assert prices(choose(everything, request())) == [5]
    with pytest.raises(
        NoOfferError,
        match="nobody has published how voltage-park mounts its NFS volumes in us-east-virginia-1; take another",
    ):
        choose(everything, request(region="us-east-virginia-1"))


def test_the_cheapest_price_is_that_of_the_first_choice():
    everything = [offer(1, mount_kind="nfs"), offer(5), offer(7)]
    assert cheapest(everything, "H200", 1, "on-demand") == choose(everything, request())[0]
    assert cheapest(everything, "H200", 1, "spot") is None


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (request("B200"), "1x B200, on-demand: no offer with this GPU; there are H200"),
        (request(count=8), "no offer with that many GPUs; H200 comes with 1, 2"),
        (
            request(count=2, billings=("spot",)),
            r"2x H200, spot: no offer with this billing; nearest: \$9.00/h on-demand",
        ),
        (request(region="Mars 1"), "no offer in region Mars 1; there are EU North 1, US Central 1"),
        (
            request(max_usd_per_hour=1.0),
            r"no offer within \$1.00/h; nearest: \$4.72/h .* raise max_usd_per_hour",
        ),
        (request(billings=("spot",)), "all 1 offers are in maintenance"),
    ],
)
def test_without_a_match_the_first_failed_condition_is_the_reason(wanted, reason):
    everything = [
        offer(),
        offer(5, regions=("EU North 1",)),
        offer(9, gpu_count=2),
        offer(billing="spot", maintenance=True),
    ]
    assert matching(everything, wanted) == []
    with pytest.raises(NoOfferError, match=reason):
        choose(everything, wanted)


def test_an_empty_list_of_offers_is_reported():
    with pytest.raises(NoOfferError, match="no offers at all"):
        choose([], request())
