"""Spot machines that are taken: what clients get, and how the server comes back without a person."""

import pytest
from streams import through_a_loss


@pytest.mark.all
def test_no_stream_is_cut_without_an_error_in_ten_losses_with_notice(projects):
    project = projects("fake", concurrency=64, machine={"billing": "spot", "fallback": "on-demand"})
    project.up()
    for number in range(10):
        machine = project.machine_id()

        def take(machine=machine):
            project.cloud.api(f"/_sim/reclaim/{machine}", "POST")

        outcomes = through_a_loss(take, project.outputs(), seed=number)
        assert sum(outcomes.streams.values()) == 50
        assert outcomes.streams["cut"] == 0, outcomes
        assert outcomes.streams["finished"] > 0, outcomes
        assert outcomes.attempts["503"] > 0, outcomes
        # The gateway stops last. The host is off a moment later; 0.2 s were measured.
        assert outcomes.attempts.keys() <= {"200", "503", "gone", "refused"}, outcomes
        assert outcomes.refused_for_s < 2, outcomes
        done = project.cli("reconcile", project.stack)
        assert done.returncode == 0, done.stdout + done.stderr
