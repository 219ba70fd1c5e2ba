"""A preview's warning about equivalent machines that cost less."""

from types import SimpleNamespace

import pytest
from pulumi_vllm.plan import Offer
from pulumi_vllm.provider.resources.cheaper_offers import warn_if_cheaper


def offer(gpu, count, usd, billing="on-demand", *, provider="p", region="Finland 3"):
    return Offer(
        provider, "o", f"{gpu}_SXM5", gpu, count, 80, usd, billing, (region,), ("Ubuntu",), False, "block", "n",
        False, None,
    )  # fmt: skip


class Call:
    def __init__(self, *offers):
        self.warned, self.asked = [], 0
        self.session = SimpleNamespace(
            cloud=lambda: SimpleNamespace(offers=SimpleNamespace(list=lambda: offers)), ask=self.ask
        )

    async def ask(self, run):
        self.asked += 1
        return run()

    async def warn(self, sentence):
        self.warned.append(sentence)


@pytest.mark.parametrize(
    ("usd", "warning"),
    [
        (3.5, "1x H200 has the same capacity for $3.50/h (p, Finland 3), 2x H100 costs $5.08/h"),
        (5.08, None),
        (6.0, None),
    ],
)
async def test_only_a_cheaper_machine_is_worth_a_warning(usd, warning):
    call = Call(offer("H200", 1, usd), offer("H200", 2, 1.0), offer("H200", 1, 0.5, "spot"))
    new = {"gpu": "H100", "count": 2, "alternatives": ["1x H200", "4x H200"]}
    await warn_if_cheaper(call, new, offer("H100", 2, 5.08))
    assert [warning in one for one in call.warned] == [True] * (warning is not None)


async def test_with_a_volume_only_machines_at_its_place_are_compared():
    call = Call(
        offer("H200", 1, 3.0, provider="other"),
        offer("H200", 1, 3.1, region="Iceland"),
        offer("H200", 1, 3.2, region="p0:Finland 3"),
    )
    new = {"gpu": "H100", "count": 2, "alternatives": ["1x H200"], "provider": "p", "region": "Finland 3"}
    await warn_if_cheaper(call, new, offer("H100", 2, 5.08))
    assert ["1x H200 has the same capacity for $3.20/h (p, p0:Finland 3)" in one for one in call.warned] == [
        True
    ]
    await warn_if_cheaper(call, {**new, "region": "Norway"}, offer("H100", 2, 5.08))
    assert len(call.warned) == 1


async def test_without_alternatives_the_cloud_is_not_asked():
    call = Call()
    await warn_if_cheaper(call, {"gpu": "CPU", "count": 0}, offer("CPU", 0, 0.01))
    assert (call.warned, call.asked) == ([], 0)
