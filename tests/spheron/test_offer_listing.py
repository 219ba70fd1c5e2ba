"""Offers: the vendor's groups become plain data, and unreadable ones are left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron import models
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.offer_listing import instance_type, parse_groups
from pulumi_vllm.spheron.providers import mount_kind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def test_every_field_of_an_offer_is_read(offers):
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
def test_every_sign_of_spot_billing_counts(offers, change, billing):
    (offer,) = offers(change)
    assert offer.billing == billing
    assert instance_type(offer) == {"spot": "SPOT", "cluster": "CLUSTER", "future": "FUTURE"}[billing]


def test_an_offer_without_a_field_that_renting_needs_is_left_out(offers):
    broken = ({"price": None}, {"clusters": []}, {"os_options": None}, {"gpuCount": "many"}, {"provider": ""})
    assert offers(*broken, {}) == offers(*[{"price": None}] * 5, {})


def test_a_machine_without_gpus_is_a_cpu(offers):
    (offer,) = offers({"gpuCount": 0, "gpu_memory": 0}, gpu_type="CPU_GENOA")
    assert (offer.gpu, offer.gpu_memory_gb) == ("CPU", None)


def test_a_region_is_sent_as_the_offer_spells_it(offers):
    (offer,) = offers({"clusters": ["166e655a:culpeper-usa-1", "Finland 3"]})
    assert offer.own_region("culpeper-usa-1") == "166e655a:culpeper-usa-1"
    assert offer.own_region("FINLAND 3") == "Finland 3"
    assert offer.own_region("Finland") is None


def test_all_pages_are_read_and_the_later_of_two_equal_offers_counts(cloud, spheron, answer, group):
    pages = [{"data": [group({})], "totalPages": 2}, {"data": [group({}, {"price": 1})], "totalPages": 2}]
    cloud.once("GET /api/gpu-offers", *[answer(page) for page in pages])
    assert [offer.usd_per_hour for offer in spheron.offers.list()] == [4.72, 1]
    assert cloud.requests[-1].query == {"page": ["2"], "limit": ["100"]}


def test_providers_have_several_spellings():
    assert mount_kind("spheron-es") == mount_kind("Spheron_ES") == "virtiofs"
    assert mount_kind("datacrunch") == mount_kind("verda") == mount_kind("data-crunch") == "block"
    assert mount_kind("voltagepark") == "nfs"
    assert mount_kind("nobody") == mount_kind(None) == "block"


@given(st.dictionaries(st.sampled_from(["id", "status", "name", "sshPort", "sshCommand"]), JSON))
def test_any_json_is_an_instance_or_a_cloud_error(item):
    message = "looking: "
    try:
        port = models.instance(item, action="looking").port
    except CloudError as error:
        port, message = 22, str(error)
    assert isinstance(port, int)
    assert message.startswith("looking: ")


@given(JSON)
def test_any_json_is_a_list_of_offers_or_a_cloud_error(payload):
    message = "instead of a list"
    groups = []
    try:
        groups = fields.unwrap_list(payload, "groups", action="listing offers")
    except CloudError as error:
        message = str(error)
    assert all(offer.regions for offer in parse_groups(groups))
    assert "instead of a list" in message
