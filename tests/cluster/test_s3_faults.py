from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.s3_faults import READS, Fault, Kind, Plan, Rule, kind_of, object_path

requests = st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from(["/b/a", "/b/c/d"])))
rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from(Fault),
        st.lists(st.sampled_from(Kind), max_size=3).map(tuple),
        st.sampled_from(["", "^/b/a$"]),
        st.none() | st.integers(1, 5),
        st.floats(0, 1),
    ),
    max_size=4,
)


@pytest.mark.parametrize(
    ("request_line", "kind"),
    [
        ("PUT /b/dir/key", Kind.PUT),
        ("PUT /b/key?partNumber=2&uploadId=u", Kind.UPLOAD_PART),
        ("POST /b/key?uploads", Kind.CREATE_MULTIPART),
        ("POST /b/key?uploadId=u", Kind.COMPLETE),
        ("DELETE /b/key?uploadId=u", Kind.ABORT),
        ("DELETE /b/key", Kind.DELETE),
        ("POST /b?delete", Kind.DELETE),
        ("GET /b/key", Kind.GET),
        ("GET /b/uploads", Kind.GET),
        ("GET /b/key?uploadId=u", Kind.LIST),
        ("GET /b?list-type=2&prefix=p%2F", Kind.LIST),
        ("GET /b?uploads", Kind.LIST),
        ("GET /b/", Kind.LIST),
        ("GET /b?location", Kind.OTHER),
        ("HEAD /b/key", Kind.HEAD),
        ("HEAD /b", Kind.HEAD),
        ("PUT /b", Kind.OTHER),
        ("POST /b/key?restore", Kind.OTHER),
    ],
)
def test_a_request_is_of_one_kind(request_line, kind):
    assert kind_of(*request_line.split(" ")) == kind


def test_a_path_is_decoded_and_without_query():
    assert object_path("/b/source%3Dx/a%20b?uploadId=u") == "/b/source=x/a b"


@given(rules, st.integers(), requests)
def test_the_same_seed_and_order_give_the_same_faults(rules, seed, requests):
    one, two = Plan(rules, seed), Plan(rules, seed)
    assert [one.choose(*r) for r in requests] == [two.choose(*r) for r in requests]


@given(rules, rules, st.integers(), requests)
def test_a_rule_leaves_those_before_it_as_they_are(rules, more, seed, requests):
    alone, together = Plan(rules, seed), Plan([*rules, *more], seed)
    for request in requests:
        expected, found = alone.choose(*request), together.choose(*request)
        assert expected is None or found == expected


@given(st.integers(1, 20), requests)
def test_the_nth_is_counted_among_those_that_match(nth, requests):
    plan = Plan([Rule(Fault.ERROR, READS, "^/b/a$", nth=nth)])
    matching = [index for index, (kind, path) in enumerate(requests) if kind in READS]
    matching = [index for index in matching if requests[index][1] == "/b/a"]
    hit = [index for index, request in enumerate(requests) if plan.choose(*request)]
    assert hit == matching[nth - 1 : nth]


def test_a_probability_is_met():
    plan = Plan([Rule(Fault.ERROR, probability=0.25)], seed=1)
    hit = sum(plan.choose(Kind.GET, "/b/a") is not None for _ in range(4000))
    assert 900 < hit < 1100


def test_the_first_rule_that_applies_decides():
    deny, slow = Rule(Fault.DENY, [Kind.PUT]), Rule(Fault.SLOW_DOWN)
    plan = Plan([deny, slow])
    assert plan.choose(Kind.PUT, "/b/a") == deny
    assert plan.choose(Kind.GET, "/b/a") == slow
    assert Plan().choose(Kind.GET, "/b/a") is None
