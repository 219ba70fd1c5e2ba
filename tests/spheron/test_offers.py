"""Offers: flattened whatever the vendor adds, chosen by what a stack file says, refused with the nearest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan.pricing import cheapest
from pulumi_vllm.spheron import models, wire
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.offers import choose, instance_type, parse
from pulumi_vllm.spheron.providers import login_user, mount_kind, same_provider

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def test_an_offer_is_read_whole(offers):
    (offer,) = offers({"minimumRuntimeMinutes": 20})
    assert (offer.gpu, offer.gpu_type, offer.gpu_count, offer.gpu_memory_gb) == ("H200", "H200_SXM5", 1, 141)
    assert (offer.usd_per_hour, offer.billing, offer.mount_kind) == (4.72, "on-demand", "virtiofs")
    assert offer.operating_systems[0] == "Ubuntu 24.04 (CUDA 13)"
    assert (offer.supports_cloud_init, offer.maintenance, offer.minimum_runtime_min) == (True, False, 20)


@pytest.mark.parametrize(
    ("change", "billing"),
    [
        ({"instanceType": "SPOT"}, "spot"),
        ({"spot_price": 2.0}, "spot"),
        ({"offerId": "x::spot"}, "spot"),
        ({"instanceType": "CLUSTER"}, "cluster"),
        ({"instanceType": "FUTURE"}, "future"),
    ],
)
def test_every_sign_of_spot_counts(offers, change, billing):
    (offer,) = offers(change)
    assert offer.billing == billing
    assert instance_type(offer) == {"spot": "SPOT", "cluster": "CLUSTER", "future": "FUTURE"}[billing]


def test_an_offer_that_lacks_what_a_create_needs_is_left_out(offers):
    broken = ({"price": None}, {"clusters": []}, {"os_options": None}, {"gpuCount": "many"}, {"provider": ""})
    assert offers(*broken, {}) == offers(*[{"price": None}] * 5, {})


def test_a_machine_without_gpus_is_a_cpu(offers):
    (offer,) = offers({"gpuCount": 0, "gpu_memory": 0}, gpu_type="CPU_GENOA")
    assert (offer.gpu, offer.gpu_memory_gb) == ("CPU", None)
    assert choose([offer], "CPU", 0, ["on-demand"]) == [offer]


def test_where_a_volume_can_not_be_mounted_nothing_is_rented_that_needs_one(offers):
    park = {"provider": "voltage-park", "clusters": ["us-east-virginia-1"], "price": 1}
    everything = offers(park, {"price": 5})
    assert [one.usd_per_hour for one in choose(everything, "H200", 1, ["on-demand"])] == [1, 5]
    assert [one.usd_per_hour for one in choose(everything, "H200", 1, ["on-demand"], with_volume=True)] == [5]
    assert cheapest(everything, "H200", 1, "on-demand").usd_per_hour == 5
    with pytest.raises(
        CloudError,
        match="nobody has published how voltage-park mounts its NFS volumes in us-east-virginia-1; take another",
    ):
        choose(everything, "H200", 1, ["on-demand"], "us-east-virginia-1", with_volume=True)


def test_the_cheapest_comes_first_and_the_rest_are_fallbacks(offers):
    found = choose(
        offers({"price": 5}, {"price": 3}, {"price": 4, "maintenance": True}, {"price": 4}),
        "h200",
        1,
        ["on-demand"],
    )
    assert [offer.usd_per_hour for offer in found] == [3, 4, 5]


def test_the_second_way_of_billing_comes_after_the_first_whatever_it_costs(offers):
    everything = offers(
        {"price": 3}, {"price": 5, "instanceType": "SPOT"}, {"price": 4, "instanceType": "SPOT"}
    )
    found = choose(everything, "H200", 1, ["spot", "on-demand"])
    assert [(offer.billing, offer.usd_per_hour) for offer in found] == [
        ("spot", 4),
        ("spot", 5),
        ("on-demand", 3),
    ]
    assert [offer.usd_per_hour for offer in choose(everything[:1], "H200", 1, ["spot", "on-demand"])] == [3]
    with pytest.raises(CloudError, match="1x H200, spot or on-demand: no offer within"):
        choose(everything, "H200", 1, ["spot", "on-demand"], None, 1.0)


@pytest.mark.parametrize("gpu", ["H200", "h200", "H200_SXM5", "h200-sxm5"])
def test_a_gpu_has_several_spellings(offers, gpu):
    assert choose(offers({}), gpu, 1, ["on-demand"])


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (("B200", 1, ["on-demand"], None, None), "no offer with this GPU; there are H200"),
        (("H200", 8, ["on-demand"], None, None), "no offer with that many GPUs; H200 comes with 1, 2"),
        (
            ("H200", 2, ["spot"], None, None),
            r"2x H200, spot: no offer billed like that; nearest: \$9.00/h on-demand",
        ),
        (
            ("H200", 1, ["on-demand"], "Mars 1", None),
            "no offer in region Mars 1; there are EU North 1, US Central 1",
        ),
        (
            ("H200", 1, ["on-demand"], None, 1.0),
            r"no offer within \$1.00/h; nearest: \$4.72/h .* raise max_usd_per_hour",
        ),
        (("H200", 1, ["spot"], None, None), "all 1 offers are in maintenance"),
    ],
)
def test_no_offer_says_why_and_what_is_near(offers, wish, words):
    everything = offers(
        {},
        {"clusters": ["EU North 1"], "price": 5},
        {"gpuCount": 2, "price": 9},
        {"instanceType": "SPOT", "maintenance": True},
    )
    with pytest.raises(CloudError, match=words):
        choose(everything, *wish)


def test_an_empty_list_is_said():
    with pytest.raises(CloudError, match="no offers at all"):
        choose([], "H200", 1, ["on-demand"])


def test_a_region_is_sent_as_the_offer_spells_it(offers):
    (offer,) = offers({"clusters": ["166e655a:culpeper-usa-1", "Finland 3"]})
    assert offer.own_region("culpeper-usa-1") == "166e655a:culpeper-usa-1"
    assert offer.own_region("FINLAND 3") == "Finland 3"
    assert offer.own_region("Finland") is None


def test_the_client_pages_and_drops_doubles(cloud, spheron, answer, group):
    pages = [{"data": [group({})], "totalPages": 2}, {"data": [group({}, {"price": 1})], "totalPages": 2}]
    cloud.once("GET /api/gpu-offers", *[answer(page) for page in pages])
    assert [offer.usd_per_hour for offer in spheron.offers()] == [4.72, 1]
    assert cloud.asked[-1].query == {"page": ["2"], "limit": ["100"]}


def test_providers_have_several_spellings():
    assert mount_kind("spheron-es") == mount_kind("Spheron_ES") == "virtiofs"
    assert mount_kind("datacrunch") == mount_kind("verda") == mount_kind("data-crunch") == "block"
    assert mount_kind("voltagepark") == "nfs"
    assert mount_kind("nobody") == mount_kind(None) == "block"
    assert login_user("data-crunch") == "root"
    assert login_user("nobody") is None
    assert same_provider("verda", "data-crunch")
    assert not same_provider(None, None)


@given(st.dictionaries(st.sampled_from(["id", "status", "name", "sshPort", "volumeIds", "sshCommand"]), JSON))
def test_no_json_breaks_a_machine_but_with_a_sentence(item):
    said = "looking: "
    try:
        port = models.instance(item, action="looking").port
    except CloudError as error:
        port, said = 22, str(error)
    assert isinstance(port, int)
    assert said.startswith("looking: ")


@given(JSON)
def test_no_json_breaks_a_list_but_with_a_sentence(payload):
    said = "instead of a list"
    groups = []
    try:
        groups = wire.records(payload, "groups", action="listing offers")
    except CloudError as error:
        said = str(error)
    assert all(offer.regions for offer in parse(groups))
    assert "instead of a list" in said
