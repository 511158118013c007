"""The whole API against its own description, by schemathesis: no request makes the server fail or answer otherwise."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from label_server import PASSWORD, Server
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from rein.web.label.limits import Buckets
from rein.web.label.serve import application

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection, unsupported_method,
]  # fmt: skip
# What needs an upload or gives a stream is tested by hand in test_label_research.py; a logout would end the rest.
THERE = {"name": "tldr", "id": 1, "batch": "batch1", "project": "tldr", "assignment": 1}
LEFT_OUT = "/(import|export|logout)$"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A server with something of everything, and an admin's key; nobody is limited."""
    server = Server(tmp_path_factory.mktemp("schema") / "labels.db")
    server.app = application(server.service, hosts=["testserver"])  # the name that schemathesis calls it by
    free = Buckets(most=1e9, per_s=1e9)
    for name in ("session", "stranger", "wrong_address", "wrong_account"):
        setattr(server.service.limits, name, free)
    admin, ann = server.client("ada", "admin"), server.client("ann")
    server.project(roles=("work", "gold"), staged=False, members=["ann", "ada"])
    for client in (ann, admin):
        [card] = client.post("/label/api/claim", json={"project": "tldr"}).json()["items"]
        client.post("/label/api/ask", json={"assignment": card["assignment"], "text": "Why?"})
        body = {"key": server.key(), "assignment": card["assignment"], "revision": 0}
        client.post("/label/api/submit", json={**body, "answers": {"choice": {"choice": 0, "points": 2}}})
    admin.post("/label/api/research/projects/tldr/instructions", json={"text": "Read both."})
    server.token = admin.post("/label/api/research/keys", json={"label": "schema", "hours": 1}).json()["key"]
    yield server
    server.close()


def check(server: Server, each: int, only: str = "") -> int:
    """Runs every operation of the API, or of the paths that match `only`, `each` times; returns how many requests."""
    schema = schemathesis.openapi.from_asgi("/label/api/openapi.json", server.app)
    done, failed = 0, []
    for found in schema.include(path_regex=only).exclude(path_regex=LEFT_OUT).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=each, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy(), st.booleans())
        def run(case, real) -> None:
            nonlocal done
            # Half of the requests are about things that are there.
            for part in (case.path_parameters, case.query, case.body):
                if real and isinstance(part, dict):
                    part.update({name: value for name, value in THERE.items() if name in part})
            headers = {"authorization": f"Bearer {server.token}"}
            case.call_and_validate(headers=headers, checks=CHECKS)
            done += 1

        try:
            run()
        except BaseExceptionGroup as group:
            failed.append(f"{operation.label}: {group}")
            failed += [str(one) for one in group.exceptions]
    assert not failed, "\n".join(failed)
    return done


def test_the_api_holds_to_its_description(known):
    assert check(known, each=6) > 200


def test_a_server_that_fails_is_found(known, monkeypatch):
    monkeypatch.setattr("rein.web.label.api.instructions_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check(known, each=4, only="^/instructions$")


def test_an_answer_that_is_not_as_described_is_found(known, monkeypatch):
    schema = known.stranger().get("/label/api/openapi.json").json()
    del schema["paths"]["/research/projects/{name}/agreement"]["get"]["responses"]["404"]
    monkeypatch.setattr(known.app.routes[0].app.app, "openapi_schema", schema)
    with pytest.raises(AssertionError, match="Undocumented status code"):
        check(known, each=4, only="/agreement$")


@pytest.mark.slow
def test_the_api_holds_to_its_description_at_length(known):
    assert check(known, each=100) > 3_000


def test_everything_but_the_doors_needs_a_session(known):
    paths = known.stranger().get("/label/api/openapi.json").json()["paths"]
    doors = {"/login", "/enter", "/join"}
    for path, methods in paths.items():
        for method in methods:
            answer = known.stranger().request(method, f"/label/api{path}", json={})
            assert answer.status_code == (422 if path in doors else 401), (method, path)


def test_the_description_names_no_secret(known):
    text = known.stranger().get("/label/api/openapi.json").text
    assert PASSWORD not in text
    assert known.token not in text
