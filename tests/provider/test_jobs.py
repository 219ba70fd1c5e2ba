from pulumi_vllm.provider.lifecycle.units import describe

UNIT = "vllm-weights.service"
RECORD = {
    "phase": "downloading",
    "files_done": 3,
    "files": 15,
    "bytes_done": 41_200_000_000,
    "bytes": 119_300_000_000,
    "rate_bytes_s": 1_012_400_000.0,
    "eta_s": 77.2,
    "error": None,
}


def test_progress_tells_files_bytes_rate_and_time_left():
    assert describe(UNIT, RECORD) == "downloading, 3/15 files, 41.2/119.3 GB, 1012.4 MB/s, 77 s left"


def test_a_small_model_is_told_in_mb_and_an_unknown_rate_not_at_all():
    small = RECORD | {"bytes": 12_400_000, "bytes_done": 600_000, "rate_bytes_s": 0.0, "eta_s": None}
    assert describe(UNIT, small) == "downloading, 3/15 files, 0.6/12.4 MB"


def test_before_the_first_record_and_between_two_tries():
    assert describe(UNIT, {}) == "waiting for vllm-weights.service"
    assert describe(UNIT, {"error": "status 503"}) == "vllm-weights.service tries again: status 503"
