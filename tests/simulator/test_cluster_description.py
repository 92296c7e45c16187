from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.description import Admission, Autoscale, ClusterPlan, Failures, Group, Transfer
from simulator.description_file import read_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMITS = {"max_seqs": 4, "token_budget": 64, "n_pages": 100, "max_context": 512}


@pytest.fixture
def read(tmp_path: Path):
    def of(document: object) -> ClusterPlan:
        path = tmp_path / "topology.json"
        path.write_text(json.dumps(document))
        return read_plan(path)

    return of


def test_the_example_reads_with_profiles_limits_prices_and_an_autoscaler() -> None:
    plan = read_plan(EXAMPLES / "topology.json")
    fast, slow = plan.groups
    assert fast.step_law is not None
    assert slow.step_law is not None
    assert fast.step_law.per_kv_token_s < slow.step_law.per_kv_token_s
    assert fast.limits is not None
    assert fast.limits.max_seqs == 128  # stated
    assert fast.limits.n_pages > 20_000  # of the profile
    assert fast.autoscale == Autoscale(target=0.5, max_servers=4)
    assert plan.places == 5
    assert plan.failures.outages[0].down_s == 90
    assert plan.admission == Admission(max_waiting_per_server=256)


def test_the_disaggregated_example_has_a_link() -> None:
    plan = read_plan(EXAMPLES / "topology_disaggregated.json")
    assert plan.disaggregated
    assert plan.transfer == Transfer(
        bytes_per_token=131072, bandwidth_bytes_per_s=50e9, latency_s=1e-3
    )


def test_what_a_file_leaves_out_is_the_clusters_own(read) -> None:
    assert read({"groups": [{}]}) == ClusterPlan(groups=(Group(),))
    assert read({"groups": [{"limits": LIMITS}]}).groups[0].limits.page_tokens == 16


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"topology must be an object; got value=\[\]"),
        ({}, "groups must be a list"),
        ({"groups": []}, "a cluster needs a group"),
        ({"groups": [{"cuont": 2}]}, r"groups\[0\] has unknown fields.*'cuont'"),
        ({"groups": [{"count": 0}]}, r"groups\[0\]: count must be >= 1; got count=0"),
        ({"groups": [{"count": "2"}]}, r"groups\[0\].count must be an integer; got value='2'"),
        ({"groups": [{"count": True}]}, r"groups\[0\].count must be an integer"),
        ({"groups": [{"watts": "x"}]}, r"groups\[0\].watts must be a number"),
        ({"groups": [{"role": "verify"}]}, "role must be one of"),
        ({"groups": [{"role": None}]}, r"groups\[0\].role must not be null"),
        ({"groups": [{"role": "decode"}]}, "some group must take arrivals"),
        ({"groups": [{"role": "prefill"}]}, "some group must decode"),
        (
            {"groups": [{"name": "a", "role": "prefill"}, {"name": "b", "role": "decode"}]},
            "a prefill group needs a transfer",
        ),
        ({"groups": [{}, {}]}, "names of groups must be distinct"),
        ({"groups": [{"limits": {"max_seqs": 4}}]}, r"groups\[0\].limits lacks fields.*n_pages"),
        ({"groups": [{"limits": LIMITS | {"n_pages": 0}}]}, r"groups\[0\].limits: n_pages must be"),
        ({"groups": [{"step_law": {"base_s": 1}}]}, r"groups\[0\].step_law: step law needs"),
        ({"groups": [{"profile": "nowhere.json"}]}, r"nowhere.json: cannot be read"),
        ({"groups": [{"profile": {"model": "x"}}]}, r"groups\[0\].profile must be a file or"),
        (
            {"groups": [{"profile": {"model": "x", "gpu": "y"}}]},
            r"groups\[0\].profile: model 'x', gpu 'y', tp 1: no such profile",
        ),
        ({"groups": [{"autoscale": {"target": 1}}]}, r"autoscale.max_servers is missing"),
        (
            {"groups": [{"autoscale": {"target": 0, "max_servers": 2}}]},
            r"groups\[0\].autoscale: target must be finite and > 0; got target=0",
        ),
        (
            {"groups": [{"count": 3, "autoscale": {"target": 1, "max_servers": 2}}]},
            r"count must lie in \[min_servers, max_servers\]",
        ),
        ({"groups": [{}], "admission": {"max_waiting": 0}}, "max_waiting must be >= 1"),
        ({"groups": [{}], "failures": {"mtbf_s": -1}}, "failures: mtbf_s must be finite and > 0"),
        (
            {"groups": [{}], "failures": {"outages": [{"machine": 1, "at_s": 0}]}},
            "machine must be < 1",
        ),
        (
            {"groups": [{}], "failures": {"outages": [{"at_s": 0}]}},
            r"failures.outages\[0\].machine is missing",
        ),
        (
            {"groups": [{}], "transfer": {"bytes_per_token": 1}},
            "transfer.bandwidth_bytes_per_s is missing",
        ),
    ],
)
def test_a_bad_description_is_one_line_that_names_file_and_field(read, document, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(document)
    text = str(caught.value)
    assert "topology.json: " in text
    assert "\n" not in text


def test_a_file_that_is_no_json_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"broken.json: cannot be read"):
        read_plan(path)


def test_more_rules_of_a_plan_are_checked() -> None:
    with pytest.raises(ValueError, match="a decode group needs a prefill group"):
        ClusterPlan(groups=(Group(), Group(name="d", role="decode")))
    with pytest.raises(ValueError, match="max_servers must be >= min_servers = 3"):
        Autoscale(target=1.0, min_servers=3, max_servers=2)
    with pytest.raises(ValueError, match="max_retries must be >= 0"):
        Failures(max_retries=-1)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "topology.json"
    path.write_text('{"groups": [{"count": 1, "count": 2}]}')
    with pytest.raises(ValueError, match=r"topology\.json.*given once; got twice=\['count'\]"):
        read_plan(path)
