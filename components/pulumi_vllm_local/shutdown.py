"""Remove the machines of a local cloud and their resources on this computer, and update the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm_local.api.store import Options, Store
from pulumi_vllm_local.machines.containers import MachineError, Machines
from pulumi_vllm_local.settings import Files, LocalCloudError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def close(state_dir: Path, *, purge: bool, progress: Callable[[str], None]) -> None:
    """Remove all machines of a cloud whose process has stopped; with `purge`, volumes and records too."""
    files, settings = Files(state_dir), Settings.read(state_dir)
    try:
        Machines(state_dir).down(purge=purge)
    except MachineError as error:
        raise LocalCloudError(f"local down: {error}") from error
    if purge:
        for path in (files.records, files.settings, files.log):
            path.unlink(missing_ok=True)
        progress("local cloud: stopped; machines and volumes removed")
        return
    if settings is not None and files.records.exists():
        kept = _update_records(files, settings)
        progress(f"local cloud: stopped; machines removed, {kept} volumes kept (--purge removes them)")
    else:
        progress("local cloud: stopped")


def _update_records(files: Files, settings: Settings) -> int:
    store = Store(files.records, settings.api_key, Options(factor=settings.factor))
    store.bill()
    for deployment in store.deployments.values():
        if deployment.alive:
            deployment.status, deployment.stopped_at = "terminated", store.clock.now()
            deployment.why = "the local cloud was stopped"
        deployment.machine = "gone"
    for volume in store.volumes.values():
        volume.attachments.clear()
    store.save()
    return len(store.volumes)
