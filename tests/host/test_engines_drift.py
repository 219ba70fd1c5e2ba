"""Drift of a host with several engines: each is named, and compared with its own unit, port and canary."""

import pytest
from pulumi_vllm.host import drift, gateway_drift, process_drift, service_drift
from pulumi_vllm.host.facts import Facts
from pulumi_vllm.render.engine_places import engine_places, engine_units, engines_of, places_of

UNITS = engine_units(2)
FILES = {"/etc/systemd/system/vllm@.service": "a" * 64}


def server(number, status="UP", seconds="90", port=None):
    address = f"127.0.0.1:{port or 8000 + number}"
    return {"name": f"engine{number}", "status": status, "seconds": seconds, "address": address}


def unit(number, **more):
    record = {"invocation": "i", "time": 1.0, "files": FILES}
    argv = ["python", "--port", f"800{number}"]
    return {"ActiveState": "active", "MainPID": "7", "UnitFileState": "enabled", "record": record, "argv": argv,
            "declared": " ".join(argv), **more}  # fmt: skip


def facts(servers=None, units=None, **more):
    gateway = {
        "servers": [server(0), server(1)] if servers is None else servers,
        "started": 1.0,
        "certificate": {"memory": "A", "file": "A"},
        "maps": {},
    }
    haproxy = {"ActiveState": "active", "MainPID": "9", "UnitFileState": "enabled"}
    known = {name: unit(number) for number, name in enumerate(UNITS)} | (units or {})
    known |= {
        "haproxy.service": haproxy | {"record": {"invocation": "i", "time": 1.0, "files": {}}},
        "vllm.service": {"LoadState": "not-found", "ActiveState": "inactive"},
        "vllm-canary.timer": {"ActiveState": "active"},
    }
    listening = [["127.0.0.1", 8000], ["127.0.0.1", 8001]]
    return Facts.parse({"probe": 1, "gateway": gateway, "units": known, "listening": listening, **more})


def gateway(*servers):
    return [one.sentence for one in gateway_drift.gateway(facts(list(servers)))]


def test_a_host_as_declared_has_no_difference():
    digest = process_drift.serving_digest(FILES)
    assert gateway(server(0), server(1)) == []
    assert list(process_drift.running(facts(), digest)) == []
    assert drift.units([*UNITS, "haproxy.service"], facts()).problems == ()


def test_the_engines_are_those_whose_units_exist():
    assert [place.unit for place in facts().engines] == list(UNITS)
    assert places_of(["vllm.service"]) == engine_places(1)
    assert engines_of(["/etc/pulumi-vllm/vllm.env"]) == 1
    assert engines_of([place.environment for place in engine_places(4)]) == 4


@pytest.mark.parametrize(
    ("servers", "sentence"),
    [
        (
            [server(0), server(1, "DRAIN")],
            "gateway sends no request to some engines: engine1 is DRAIN, declared UP; `pulumi up` opens it",
        ),
        (
            [server(0, "MAINT"), server(1, "DRAIN")],
            ("gateway answers 503 to every request: engine0 is MAINT, engine1 is DRAIN, declared UP; "
            "`pulumi up` opens it"),
        ),
        (
            [server(0), server(1, "DOWN")],
            "vllm@1.service listens, but has not answered the gateway's checks for 90 s; `pulumi up` restarts it",
        ),
        (
            [server(0), server(1, port=9)],
            ("server engine1 in the gateway's memory is 127.0.0.1:9, declared 127.0.0.1:8001; "
            "`pulumi up` reloads the gateway"),
        ),
    ],
)  # fmt: skip
def test_an_engine_is_named(servers, sentence):
    assert gateway(*servers) == [sentence]


def test_one_process_that_differs_is_named():
    other = unit(1, record={"invocation": "i", "time": 1.0, "files": {"/x": "b" * 64}})
    found = facts(units={UNITS[1]: other})
    (difference,) = process_drift.running(found, process_drift.serving_digest(FILES))
    assert (difference.subject, difference.restarts_engine) == ("vllm@1.service process", True)
    assert (difference.engine, difference.remedy) == (UNITS[1], "`pulumi up` drains and restarts this engine")
    flags = facts(units={UNITS[1]: unit(1, argv=["python", "--port", "8001", "--x"])})
    assert drift.with_other_arguments(flags) == (UNITS[1],)
    assert drift.units(UNITS, flags).problems == ("vllm@1 runs with other arguments than its unit",)


@pytest.mark.parametrize(
    "path", ["/etc/systemd/system/vllm@1.service", "/run/systemd/system/vllm@.service.d/more.conf"]
)
def test_what_an_engine_was_started_with_and_nobody_declared_is_named(path):
    digest = process_drift.serving_digest(FILES)
    record = {"invocation": "i", "time": 1.0, "files": FILES | {path: "b" * 64}}
    undeclared = {"text": "x", "mode": "0644", "owner": "root:root", "sha256": "b" * 64}
    declared = undeclared | {"sha256": "a" * 64}
    found = facts(
        units={UNITS[1]: unit(1, record=record)},
        drop_ins={path: undeclared},
        files={next(iter(FILES)): declared},
    )
    (difference,) = process_drift.running(found, digest)
    assert difference.sentence.startswith(
        f"vllm@1.service process was started with other files than declared: {path};"
    )


def undeclared(units=None, **more):
    return [one.sentence for one in service_drift._undeclared_engines(facts(units=units, **more))]


def test_an_engine_that_nobody_declared_is_named():
    assert undeclared(engine_units=list(UNITS)) == []
    assert undeclared(engine_units=[*UNITS, "vllm@2.service", "vllm.service"]) == [
        f"{unit} runs or starts at boot, and is not declared; `pulumi up` stops and disables it"
        for unit in ("vllm@2.service", "vllm.service")
    ]


def test_the_only_engine_of_a_host_is_declared_also_where_its_unit_is_missing():
    units = {"vllm.service": {"LoadState": "not-found", "ActiveState": "active"}}
    alone = Facts.parse({"probe": 1, "units": units, "engine_units": ["vllm.service", "vllm@0.service"]})
    assert alone.undeclared_engines == ("vllm@0.service",)


def test_each_canary_is_compared_and_that_of_an_earlier_engine_is_not():
    fine = {"age_s": 9.0, "engine": "answers", "gateway": "answers"}
    ended = {"memory": {"restarts": [{"time": "2026-11-30T00:00:00Z", "reason": "it hung"}]}}
    results = [place.canary_result for place in engine_places(2)]
    found = facts(canaries={
        results[0]: fine,
        results[1]: {**fine, "engine": "refuses", "observed": "status 404", **ended},
        "/var/lib/pulumi-vllm/canary.json": {**fine, "age_s": 9999.0},
    })  # fmt: skip
    assert [one.sentence for one in service_drift._canary(found)] == [
        "vllm@1.service refuses to answer one token: status 404; `pulumi up` restarts it"
    ]
    assert service_drift.canary_restarts(found).startswith("the canary ended vllm@1.service once")
    assert results[1] in service_drift.canary_restarts(found)
