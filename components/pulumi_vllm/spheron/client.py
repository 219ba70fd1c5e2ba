"""The rental API's client: one method per thing a person would ask for; blocking, without long waits."""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pulumi_vllm.spheron import models, wire
from pulumi_vllm.spheron import offers as offers_
from pulumi_vllm.spheron.budget import CallBudget, SpendGuard
from pulumi_vllm.spheron.errors import CloudError, UnknownStatus
from pulumi_vllm.spheron.models import CreateInstance, Instance, SshKey, Termination, Volume
from pulumi_vllm.spheron.renting import rent
from pulumi_vllm.spheron.ssh_keys import SshKeys
from pulumi_vllm.spheron.transport import Http
from pulumi_vllm.spheron.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pulumi_vllm.plan.offer import Offer

_PER_PAGE = 100
_MOST_PAGES = 50


class Spheron:
    """One team at the rental API. Safe to call from several threads; shows its key to nobody."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        team_id: str | None = None,
        budget: CallBudget | None = None,
        guard: SpendGuard | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        lookup_s: float = 60.0,
        timeouts_s: Mapping[str, float] | None = None,
    ) -> None:
        self.http = Http(url, api_key, budget=budget, clock=clock, sleep=sleep, timeouts_s=timeouts_s)
        self.clock = clock
        self.guard = guard or SpendGuard(clock=clock)
        self.lookup_s = lookup_s
        self._keys, self._volumes = SshKeys(self), Volumes(self)
        self._names: dict[str, str] = {}
        self._team = team_id
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Spheron({self.http.url!r})"

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self.http.close()

    # -- team and offers -------------------------------------------------------------------------------
    def team_id(self) -> str:
        """The team that is billed: the given one, else the key's current, else its first."""
        with self._lock:
            if self._team is None:
                self._team = wire.text(self._purse("asking for the team"), "teamId", "id")
            if self._team is None:
                raise CloudError(
                    "asking for the team: the key belongs to no team; create one in the dashboard"
                )
            return self._team

    def balance(self) -> float | None:
        """Credit of the team in USD; None where the API does not say."""
        return wire.number(self._purse("asking for the balance"), "balance")

    def offers(self) -> tuple[Offer, ...]:
        """Every offer of every group, also those in maintenance."""
        found = offers_.parse(self.list("/api/gpu-offers", "groups", action="listing offers"))
        return tuple({(offer.provider, offer.offer_id): offer for offer in found}.values())

    # -- machines ----------------------------------------------------------------------------------------
    def create_instance(self, wish: CreateInstance) -> Instance:
        """Rent one machine, at most once; an answer that got lost is looked up by name.

        Raises:
            OutOfStock: the offer can't be had; another may.
            Ambiguous: nobody knows whether it was rented.
        """
        return rent(self, wish)

    def instances(self) -> tuple[Instance, ...]:
        """Every machine of the team that the API still lists, ended ones too."""
        action = "listing machines"
        params = {"teamId": self.team_id()}
        found = self.list("/api/deployments", "deployments", action=action, params=params)
        return tuple(self._seen(models.instance(item, action=action)) for item in found)

    def find_instance(self, name: str) -> Instance | None:
        """The live machine of this name; ended ones of the same name don't count.

        Raises:
            CloudError: there are two, which only a person can sort out.
        """
        live = [found for found in self.instances() if found.name == name and not found.terminal]
        if len(live) > 1:
            ids = ", ".join(found.id for found in live)
            raise CloudError(
                f"finding {name}: {len(live)} live machines have this name ({ids}); end all but one"
            )
        return live[0] if live else None

    def instance(self, instance_id: str) -> Instance | None:
        """One machine, also when it has ended; None when the API neither knows nor lists it.

        A machine that is taken for gone is forgotten and bills on, so that "not found" is believed only when the
        list agrees.

        Raises:
            UnknownStatus: it is in a state nobody has documented.
        """
        action = f"looking at machine {instance_id}"
        try:
            answer = self.http.get(f"/api/deployments/{quote(instance_id, safe='')}", action=action)
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            found = next((one for one in self.instances() if one.id == instance_id), None)
            if found is None:
                return None
        else:
            found = self._seen(
                models.instance(wire.record(answer, "deployment", action=action), action=action)
            )
        if found.status not in models.STATUSES:
            raise UnknownStatus(
                f"{action}: the cloud says it is {found.status!r}, which this version does not know; "
                "nothing was changed, look at the cloud's console and for a newer pulumi-vllm"
            )
        return found

    def called(self, instance_id: str) -> str:
        """A machine for a person: with the name that an answer showed; the id finds it in the console."""
        name = self._names.get(instance_id)
        return f"{name} ({instance_id})" if name else instance_id

    def can_terminate(self, instance_id: str) -> Termination:
        """Whether the minimum run time is over; "yes" also where nobody could say: a DELETE refuses too."""
        action = f"asking whether machine {self.called(instance_id)} may end"
        try:
            answer = self.http.get(
                f"/api/deployments/{quote(instance_id, safe='')}/can-terminate", action=action
            )
            item = wire.record(answer, action=action)
        except CloudError as error:
            if error.status in {401, 403, 429} or (error.status is None and error.acted is False):
                raise
            return Termination(can=True, remaining_min=0, minimum_min=None, reason=str(error))
        # "No" without minutes to wait for is said of a machine that has ended: waiting would never end.
        remaining = 0 if item.get("canTerminate") is not False else wire.whole(item, "timeRemaining") or 0
        can = remaining <= 0
        return Termination(
            can, max(0, remaining), wire.whole(item, "minimumRuntime"), wire.text(item, "reason")
        )

    def terminate(self, instance_id: str) -> None:
        """End a machine; one that has ended already is a success.

        Raises:
            TooEarly: the minimum run time is not over; it runs on and bills.
        """
        try:
            self.http.delete(
                f"/api/deployments/{quote(instance_id, safe='')}",
                action=f"ending machine {self.called(instance_id)}",
            )
        except CloudError as error:
            ended = (
                error.status == HTTPStatus.NOT_FOUND
                or wire.text(error.payload, "currentStatus") in models.TERMINAL
            )
            if not ended:
                raise

    def rename(self, instance_id: str, name: str) -> None:
        """Give a machine another name."""
        path = f"/api/deployments/{quote(instance_id, safe='')}"
        try:
            self.http.patch(path, {"name": name}, action=f"renaming machine {instance_id} to {name}")
        except CloudError as error:
            if error.acted is False:
                raise
            found = self.instance(instance_id)
            if found is None or found.name != name:
                raise

    # -- SSH keys ------------------------------------------------------------------------------------------
    def ssh_keys(self) -> tuple[SshKey, ...]:
        """The registered keys; the key itself is None where the list leaves it out."""
        return self._keys.all()

    def create_ssh_key(self, name: str, public_key: str) -> SshKey:
        """Register a key; the very same key under the very same name is returned, not registered twice."""
        return self._keys.create(name, public_key)

    def delete_ssh_key(self, key_id: str) -> None:
        """Forget a key; one that is not there is a success."""
        self._keys.delete(key_id)

    # -- volumes -------------------------------------------------------------------------------------------
    def volumes(self) -> tuple[Volume, ...]:
        """Every volume that was not deleted."""
        return self._volumes.all()

    def find_volume(self, name: str) -> Volume | None:
        """The volume of this name."""
        return self._volumes.find(name)

    def volume(self, handle: str) -> Volume | None:
        """The volume with this handle (or database id: the list is searched, the API is picky)."""
        return self._volumes.one(handle)

    def create_volume(self, name: str, size_gb: int, provider: str, region: str) -> Volume:
        """Make a volume; an answer that got lost is looked up by name."""
        return self._volumes.create(name, size_gb, provider, region)

    def grow_volume(self, handle: str, size_gb: int) -> None:
        """Make a volume larger; most providers refuse."""
        self._volumes.grow(handle, size_gb)

    def delete_volume(self, handle: str) -> None:
        """Delete a detached volume and all it holds; one that is not there is a success."""
        self._volumes.delete(handle)

    def attach(self, handle: str, instance_id: str) -> None:
        """Attach a volume; some providers restart the machine."""
        self._volumes.attach(handle, instance_id)

    def detach(self, handle: str, instance_id: str, ignore_errors: bool = False) -> None:
        """Detach a volume; with `ignore_errors` a refusal is taken as "was not attached"."""
        self._volumes.detach(handle, instance_id, ignore_errors=ignore_errors)

    def volume_price(self, provider: str, region: str | None = None) -> float:
        """USD per GB and hour.

        Raises:
            CloudError: the cloud publishes no price; guessing one would be worse.
        """
        return self._volumes.price(provider, region)

    # -- lists -----------------------------------------------------------------------------------------------
    def list(
        self, path: str, *wrappers: str, action: str, params: Mapping[str, Any] | None = None
    ) -> list[wire.Record]:
        """All pages of a list, whatever it is wrapped in."""
        found: list[wire.Record] = []
        for page in range(1, _MOST_PAGES + 1):
            query = {**(params or {}), "page": page, "limit": _PER_PAGE}
            answer = self.http.get(path, action=action, params=query)
            found += wire.records(answer, *wrappers, action=action)
            pages = wire.whole(answer, "totalPages") if isinstance(answer, dict) else None
            if not pages or page >= pages:
                return found
        raise CloudError(f"{action}: more than {_MOST_PAGES} pages; this is no list a team has")

    def _seen(self, found: Instance) -> Instance:
        self._names[found.id] = found.name
        return found

    def _purse(self, action: str) -> wire.Record:
        answer = self.http.get("/api/balance", action=action)
        teams = wire.records(answer, "teams", action=action)
        if self._team is not None:
            teams = [team for team in teams if wire.text(team, "teamId", "id") == self._team] or teams
        current = [team for team in teams if team.get("isCurrentTeam") is True]
        if not teams:
            raise CloudError(f"{action}: the key belongs to no team; create one in the dashboard")
        return (current or teams)[0]
