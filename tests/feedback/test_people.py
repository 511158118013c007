"""People: names, passwords, sessions, keys, invitations, the audit log."""

from __future__ import annotations

import hashlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher, extract_parameters
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, update

from rein.errors import UserError
from rein.feedback import passwords, people, tables
from rein.feedback.passwords import Hashed, belongs, hashed
from rein.feedback.tables import invite, member, person, session

HOUR = 3_600_000
PASSWORD = "correct horse battery"
WITHOUT_ARGON = Hashed("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aaaa")  # is nobody's password, and takes no time to make


@pytest.fixture
def do(store):
    """Does one of people.py's works on the store: do(people.add_person, 0, …)."""

    def work(function, *words, **named):
        return store.write(lambda conn: function(conn, *words, **named))

    return work


def test_an_unknown_name_takes_as_much_work_as_a_known_one():
    assert not passwords._HASHER.check_needs_rehash(passwords._NOBODY)


@pytest.fixture
def quick(monkeypatch):
    """Passwords that take no time to check, for tests of what follows from it."""
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", hasher)
    monkeypatch.setattr(passwords, "_NOBODY", hasher.hash("nobody's"))


@pytest.fixture
def ann(do):
    return do(people.add_person, 5, "Ann", "labeler", WITHOUT_ARGON)


@pytest.fixture
def boss(do):
    return do(people.add_person, 5, "Boss", "admin")


@pytest.fixture
def project(do):
    def make(name="p", **settings):
        row = insert(tables.project).values(name=name, settings=settings, created_ms=1)
        return do(lambda conn: conn.execute(row).inserted_primary_key[0])

    return make


def count(store, table) -> int:
    with store.reading() as conn:
        return conn.execute(select(func.count()).select_from(table)).scalar()


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["A", "Ann Lee", "Zoë", "李雷", "O'Neil-3", "x" * 64, "ابن سينا", "👩 Ann"])
def test_names_of_people_everywhere_are_names(name):
    assert people.clean_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "  ", "x" * 65, "a\nb", "a\0", "a\u202eb", "a\u200bb", "a\u2066b", "\ufeffa", "a\u00adb", "a\u3164", "a\ufe0f",
     "\u2800", "a\ud800", "a\u2028b", "a\u00a0b", "a\ue000", "\U000e0041"],
)  # fmt: skip
def test_names_that_are_empty_long_or_hold_what_nobody_sees_are_refused(name, do):
    with pytest.raises(UserError, match="name"):
        do(people.add_person, 1, name, "labeler")


@given(st.text(max_size=80))
def test_a_clean_name_stays_clean_and_can_be_kept(text):
    try:
        name = people.clean_name(text)
    except UserError:
        return
    assert people.clean_name(name) == name
    assert 1 <= len(name) <= 64
    assert name.isprintable()
    name.encode()


@pytest.mark.parametrize("other", ["ann", "ANN", " Ann ", "Ａｎｎ", "𝐀nn"])
def test_a_name_that_would_be_taken_for_another_is_taken(do, ann, other):
    with pytest.raises(UserError, match=r"called .* already"):
        do(people.add_person, 1, other, "labeler")
    assert do(people.find_person, other) == ann


def test_names_are_compared_as_unicode_says(do):
    street = do(people.add_person, 1, "Straße", "labeler")
    assert do(people.find_person, "STRASSE") == street
    composed = do(people.add_person, 1, "Zoe\u0308", "labeler")
    assert do(people.find_person, "zo\u00eb") == composed
    assert do(people.find_person, "nobody\0") is None


def test_an_unknown_role_is_refused(do):
    with pytest.raises(UserError, match="no role 'king'"):
        do(people.add_person, 1, "Ann", "king")


# ------------------------------------------------------------------------------------------------------ passwords


def test_a_password_lets_in_and_another_does_not(store, do, quick):
    ann = do(people.add_person, 1, "Ann", "labeler", PASSWORD)
    assert people.check_password(store, 2, "Ann", PASSWORD) == ann
    assert people.check_password(store, 2, " aNN ", PASSWORD) == ann
    for name, password in [
        ("Ann", PASSWORD + "x"), ("Ann", PASSWORD.upper()), ("Ann", ""), ("Anne", PASSWORD), ("", ""), ("\0", "\0"),
        ("Ann", "\ud800"), ("Ann", "x" * 1_000_000), ("x" * 1_000_000, PASSWORD), ("Ann", PASSWORD + "\0"),
    ]:  # fmt: skip
        assert people.check_password(store, 2, name, password) is None


def test_a_password_is_kept_as_argon2id_and_nowhere_as_it_is(tmp_path, store, do):
    do(people.add_person, 1, "Ann", "labeler", PASSWORD)
    with store.reading() as conn:
        kept = conn.execute(select(person.c.password)).scalar()
    assert kept.startswith("$argon2id$")
    assert extract_parameters(kept).memory_cost >= 19 * 1024  # the least that OWASP's cheat sheet names
    store.close()
    for path in tmp_path.iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


def test_without_a_password_or_an_open_account_nobody_gets_in(store, do, boss, quick):
    do(people.add_person, 1, "No", "labeler")
    ann = do(people.add_person, 1, "Ann", "labeler", PASSWORD)
    assert people.check_password(store, 2, "No", "") is None
    do(people.change_person, 2, boss, ann, active=False)
    assert people.check_password(store, 2, "Ann", PASSWORD) is None
    do(people.change_person, 2, boss, ann, active=True)
    assert people.check_password(store, 2, "Ann", PASSWORD) == ann


def test_an_unknown_name_costs_one_check_as_a_known_one_does(store, do, monkeypatch, quick):
    do(people.add_person, 1, "Ann", "labeler", PASSWORD)
    do(people.add_person, 1, "No", "labeler")
    verified = []
    real = PasswordHasher.verify

    def verify(self, kept, word):
        verified.append(kept)
        return real(self, kept, word)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    for name in ("Ann", "No", "Nobody"):
        assert people.check_password(store, 2, name, "wrong password") is None
    assert len(verified) == 3
    assert len({str(extract_parameters(kept)) for kept in verified}) == 1


def test_an_unknown_name_takes_as_long_as_a_known_one(store, do):
    do(people.add_person, 1, "Ann", "labeler", PASSWORD)

    def took(name: str) -> float:
        begun = time.process_time()  # of all threads: argon2 uses several, and other programs do not count
        people.check_password(store, 2, name, "wrong password")
        return time.process_time() - begun

    times = {name: statistics.median(took(name) for _ in range(3)) for name in ("Ann", "Nobody")}
    assert 0.5 < times["Nobody"] / times["Ann"] < 2


def test_a_digest_of_older_parameters_is_made_anew_at_a_login(store, do):
    ann = do(
        people.add_person, 1, "Ann", "labeler", Hashed(PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD))
    )
    assert people.check_password(store, 2, "Ann", "wrong password") is None
    with store.reading() as conn:
        assert "m=1024," in conn.execute(select(person.c.password)).scalar()
    assert people.check_password(store, 2, "Ann", PASSWORD) == ann
    with store.reading() as conn:
        kept = conn.execute(select(person.c.password)).scalar()
    assert not passwords.outdated(kept)
    assert people.check_password(store, 2, "Ann", PASSWORD) == ann


def test_a_digest_that_is_none_lets_nobody_in(store, do):
    do(people.add_person, 1, "Ann", "labeler", Hashed("md5:abc"))
    assert people.check_password(store, 2, "Ann", "md5:abc") is None


@pytest.mark.parametrize("password", ["", "x" * 9, "x" * 201, "x" * 10 + "\ud800"])
def test_passwords_that_are_short_long_or_no_text_are_refused(do, password):
    with pytest.raises(UserError, match="password") as caught:
        do(people.add_person, 1, "Ann", "labeler", password)
    assert not password or password not in str(caught.value)


def test_a_password_may_be_of_any_characters_and_typed_on_any_keyboard(quick):
    for password in ("x" * 10, "x" * 200, "pass word\0 of", "пароль-пароль", "🐎" * 10):
        assert belongs(password, hashed(password))
    assert belongs("caf\u00e9 caf\u00e9 caf\u00e9", hashed("cafe\u0301 cafe\u0301 cafe\u0301"))
    assert hashed(WITHOUT_ARGON) is WITHOUT_ARGON


def test_no_more_than_four_passwords_are_checked_at_once(monkeypatch):
    """Each takes 64 MiB: a hundred at once would be 6.4 GB."""
    now, most = [0], [0]

    def verify(*_: object) -> bool:
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.02)
        now[0] -= 1
        return True

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: belongs("x" * 10, "x"), range(20)))
    assert most[0] == 4


def test_another_password_closes_the_other_sessions(store, do, ann, quick):
    mine, other, key = (do(people.open_session, 1, ann, kind, "", HOUR) for kind in ("browser", "browser", "key"))
    here = do(people.who, 2, mine)
    do(people.set_password, 2, ann, PASSWORD, keep=here.session)
    assert [do(people.who, 3, token) is not None for token in (mine, other, key)] == [True, False, False]
    assert people.check_password(store, 3, "Ann", PASSWORD) == ann
    with pytest.raises(UserError, match="no person of number 99"):
        do(people.set_password, 2, 99, PASSWORD)


# ---------------------------------------------------------------------------------------------- sessions and keys


def test_a_token_says_who_it_is_until_it_ends(do, ann):
    token = do(people.open_session, 10, ann, "browser", "Firefox", HOUR)
    found = do(people.who, 11, token)
    assert (found.id, found.name, found.role, found.kind, found.seen_ms) == (ann, "Ann", "labeler", "browser", 10)
    assert do(people.who, 10 + HOUR - 1, token) == found
    assert do(people.who, 10 + HOUR, token) is None
    for other in ("", token[:-1], token + "x", token.swapcase(), "\0", "\ud800", "x" * 100_000, found.session):
        assert do(people.who, 11, other) is None


def test_tokens_are_long_random_and_kept_as_digests_alone(tmp_path, store, do, ann):
    tokens = [do(people.open_session, 1, ann, kind, "a", HOUR) for kind in ("browser", "key") for _ in range(20)]
    tokens += [do(people.invite, 1, "labeler", life_ms=HOUR) for _ in range(20)]
    assert len(set(tokens)) == 60
    assert {len(token.removeprefix("rein_")) for token in tokens} == {43}  # 256 bits, six to a letter
    with store.reading() as conn:
        kept = set(conn.execute(select(session.c.token)).scalars()) | set(
            conn.execute(select(invite.c.token)).scalars()
        )
    assert kept == {hashlib.sha256(token.encode()).hexdigest() for token in tokens}
    store.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [token for token in tokens if token.encode() in data]


def test_a_key_can_be_told_from_others_by_its_label(do, ann):
    key = do(people.open_session, 1, ann, "key", "laptop", HOUR)
    assert key.startswith("rein_")
    (row,) = do(people.sessions, 2, ann)
    assert (row["kind"], row["label"]) == ("key", f"laptop ({key[:9]}…)")
    long = do(people.open_session, 2, ann, "key", "x" * 1000, HOUR)
    labels = [row["label"] for row in do(people.sessions, 3, ann)]
    assert f"({long[:9]}…)" in labels[0]
    assert max(map(len, labels)) <= 200


def test_a_login_ends_the_session_it_comes_from(do, ann):
    old = do(people.open_session, 1, ann, "browser", "", HOUR)
    other = do(people.open_session, 1, ann, "browser", "", HOUR)
    new = do(people.open_session, 2, ann, "browser", "", HOUR, instead_of=do(people.who, 2, old).session)
    assert [do(people.who, 3, token) is not None for token in (old, other, new)] == [False, True, True]


def test_sessions_are_closed_by_their_owner_alone(do, ann, boss):
    mine, key = do(people.open_session, 1, ann, "browser", "", HOUR), do(people.open_session, 2, ann, "key", "", HOUR)
    theirs = do(people.open_session, 1, boss, "browser", "", HOUR)
    rows = do(people.sessions, 3, ann)
    assert [row["kind"] for row in rows] == ["key", "browser"]
    assert do(people.sessions, 2 + HOUR, ann) == []
    assert not do(people.close_session, ann, do(people.who, 3, theirs).session)
    assert do(people.close_session, ann, rows[0]["id"])
    assert not do(people.close_session, ann, rows[0]["id"])
    assert [do(people.who, 3, token) is not None for token in (mine, key, theirs)] == [True, False, True]
    assert do(people.close_sessions, ann) == 1
    assert [do(people.who, 3, token) is not None for token in (mine, theirs)] == [False, True]


def test_being_seen_is_noted_when_asked(do, ann):
    token = do(people.open_session, 1, ann, "browser", "", HOUR)
    do(people.touch, 500, do(people.who, 400, token))
    assert do(people.who, 501, token).seen_ms == 500
    assert [row["seen_ms"] for row in do(people.everybody)] == [500]


def test_who_is_let_out_is_out_at_once(do, ann, boss):
    token = do(people.open_session, 1, ann, "key", "", HOUR)
    do(people.change_person, 2, boss, ann, active=False)
    assert do(people.who, 2, token) is None
    with pytest.raises(UserError, match="account is closed"):
        do(people.open_session, 2, ann, "browser", "", HOUR)
    do(people.change_person, 3, boss, ann, active=True)
    assert do(people.who, 3, token) is None  # the old key stays ended
    token = do(people.open_session, 4, ann, "key", "", HOUR)
    do(lambda conn: conn.execute(update(person).values(active=False)).rowcount)  # by whatever way, with a session left
    assert do(people.who, 4, token) is None


def test_a_new_role_counts_at_once(do, ann, boss):
    token = do(people.open_session, 1, ann, "browser", "", HOUR)
    assert not do(people.who, 1, token).may("researcher")
    do(people.change_person, 2, boss, ann, role="researcher")
    found = do(people.who, 2, token)
    assert (found.may("researcher"), found.may("admin")) == (True, False)


def test_who_may_change_whom(do, ann, boss):
    researcher = do(people.add_person, 1, "Res", "researcher")
    do(people.change_person, 2, researcher, ann, active=False)
    do(people.change_person, 2, researcher, ann, active=True, role="researcher")
    for author, whom, change in [
        (researcher, boss, {"active": False}), (researcher, boss, {"role": "labeler"}),
        (researcher, ann, {"role": "admin"}), (researcher, researcher, {"role": "admin"}),
    ]:  # fmt: skip
        with pytest.raises(UserError, match="of the role admin may"):
            do(people.change_person, 3, author, whom, **change)
    with pytest.raises(UserError, match="no role 'king'"):
        do(people.change_person, 3, boss, ann, role="king")
    with pytest.raises(UserError, match="no person of number 99"):
        do(people.change_person, 3, boss, 99, active=True)
    do(people.change_person, 3, None, ann)  # nothing is nothing


@pytest.mark.parametrize("change", [{"active": False}, {"role": "researcher"}], ids=str)
def test_the_last_admin_stays(do, boss, change):
    with pytest.raises(UserError, match="Boss is the only admin"):
        do(people.change_person, 2, boss, boss, **change)
    other = do(people.add_person, 1, "Second", "admin")
    do(people.change_person, 3, other, boss, **change)
    with pytest.raises(UserError, match="Second is the only admin"):
        do(people.change_person, 4, None, other, **change)


def test_preferences_and_the_list_of_people(do, ann, boss):
    do(people.set_preferences, ann, {"keys": False})
    token = do(people.open_session, 7, ann, "browser", "", HOUR)
    assert do(people.who, 8, token).preferences == {"keys": False}
    rows = do(people.everybody)
    assert [row["name"] for row in rows] == ["Ann", "Boss"]
    assert [(row["password"], row["seen_ms"]) for row in rows] == [(True, 7), (False, None)]


# ---------------------------------------------------------------------------------------------------- invitations


def test_an_invitation_makes_people_as_often_as_it_says(do, boss, project):
    p = project()
    token = do(people.invite, 1, "researcher", p, uses=2, life_ms=HOUR, author=boss)
    first = do(people.accept, 2, token, "One", WITHOUT_ARGON)
    with pytest.raises(UserError, match=r"called .* already"):
        do(people.accept, 2, token, "one", WITHOUT_ARGON)  # which uses nothing up
    second = do(people.accept, 2, token, "Two", WITHOUT_ARGON)
    with pytest.raises(UserError, match="used up, has expired, or never was"):
        do(people.accept, 2, token, "Three", WITHOUT_ARGON)
    assert [(row["name"], row["role"]) for row in do(people.everybody)][1:] == [
        ("One", "researcher"),
        ("Two", "researcher"),
    ]
    members = do(lambda conn: conn.execute(select(member.c.person, member.c.state)).all())
    assert members == [(first, "working"), (second, "working")]


def test_guests_at_once_do_not_use_an_invitation_more_often(store, do):
    token = do(people.invite, 1, "labeler", uses=3, life_ms=HOUR)

    def guest(number: int) -> bool:
        try:
            store.write(lambda conn: people.accept(conn, 2, token, f"Guest {number}", WITHOUT_ARGON))
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(guest, range(12))) == 3
    assert count(store, person) == 3


@pytest.mark.parametrize(("onboarding", "state"), [(0, "working"), (5, "training")])
def test_a_guest_starts_in_training_where_there_is_an_onboarding_round(do, project, onboarding, state):
    token = do(people.invite, 1, "labeler", project(onboarding=onboarding), life_ms=HOUR)
    do(people.accept, 2, token, "Guest", WITHOUT_ARGON)
    assert do(lambda conn: conn.execute(select(member.c.state, member.c.since_ms)).all()) == [(state, 2)]


def test_an_invitation_ends(do):
    token = do(people.invite, 10, "labeler", life_ms=HOUR)
    for now, word in ((10 + HOUR, token), (11, token + "x"), (11, ""), (11, "\0\ud800")):
        with pytest.raises(UserError, match="used up, has expired, or never was"):
            do(people.accept, now, word, "Guest", WITHOUT_ARGON)
    assert do(people.accept, 9 + HOUR, token, "Guest", WITHOUT_ARGON)


@pytest.mark.parametrize(("name", "password"), [(None, None), ("Guest", None), ("", "x" * 10), ("Guest", "")])
def test_a_new_person_needs_a_name_and_a_password(do, name, password):
    token = do(people.invite, 1, "labeler", life_ms=HOUR)
    with pytest.raises(UserError, match="needs a name and a password"):
        do(people.accept, 2, token, name, password)
    assert do(people.accept, 2, token, "Guest", WITHOUT_ARGON)


def test_a_person_is_let_in_again_once_with_or_without_a_new_password(store, do, ann, project, quick):
    p = project()
    do(people.join, 1, p, ann, "stopped")
    old = do(people.open_session, 1, ann, "key", "", HOUR)
    plain = do(people.invite, 1, "labeler", p, person=ann, life_ms=HOUR)
    assert do(people.accept, 2, plain) == ann
    with pytest.raises(UserError, match="used up"):
        do(people.accept, 2, plain)
    assert do(people.who, 2, old) is not None
    reset = do(people.invite, 1, "labeler", person=ann, life_ms=HOUR)
    assert do(people.accept, 2, reset, "ignored", PASSWORD) == ann
    assert people.check_password(store, 3, "Ann", PASSWORD) == ann
    assert do(people.who, 3, old) is None
    assert do(lambda conn: conn.execute(select(member.c.state)).scalars().all()) == [
        "stopped"
    ]  # a link changes no state


def test_an_invitation_gives_nobody_more_than_its_author_has(do, ann, boss):
    researcher = do(people.add_person, 1, "Res", "researcher")
    assert do(people.invite, 2, "labeler", person=ann, life_ms=HOUR, author=researcher)
    for author, role, whom in [(researcher, "admin", None), (researcher, "labeler", boss), (ann, "researcher", None)]:
        with pytest.raises(UserError, match="may do that"):
            do(people.invite, 2, role, person=whom, life_ms=HOUR, author=author)


def test_an_invitation_ends_with_its_authors_right(do, ann, boss):
    """Who may no longer invite has invited nobody; nor does a link to a person grow with that person's role."""
    researcher = do(people.add_person, 1, "Res", "researcher")
    for_two = do(people.invite, 2, "researcher", uses=2, life_ms=HOUR, author=researcher)
    into_ann = do(people.invite, 2, "labeler", person=ann, life_ms=HOUR, author=researcher)
    assert do(people.accept, 3, for_two, "Fine", WITHOUT_ARGON)
    do(people.change_person, 3, boss, ann, role="admin")
    with pytest.raises(UserError, match="role admin"):
        do(people.accept, 4, into_ann)
    do(people.change_person, 4, boss, researcher, role="labeler")
    with pytest.raises(UserError, match="role researcher"):
        do(people.accept, 5, for_two, "Late", WITHOUT_ARGON)
    do(people.change_person, 5, boss, researcher, role="researcher", active=False)
    with pytest.raises(UserError, match="not here any more"):
        do(people.accept, 6, for_two, "Late", WITHOUT_ARGON)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"role": "king"}, "no role 'king'"),
        ({"uses": 0}, "0 uses"),
        ({"uses": 1001}, "1001 uses"),
        ({"uses": 2, "person": 1}, "lets a person in again"),
        ({"person": 99}, "no person of number 99"),
        ({"project": 99}, "no project of number 99"),
        ({"life_ms": 0}, "ended before it began"),
        ({"author": 99}, "no person of number 99"),
    ],
)
def test_invitations_that_are_none(do, ann, words, said):
    with pytest.raises(UserError, match=said):
        do(people.invite, 1, **{"role": "labeler", "life_ms": HOUR, **words})


def test_a_closed_account_is_not_let_in_again(do, ann, boss):
    token = do(people.invite, 1, "labeler", person=ann, life_ms=HOUR)
    do(people.change_person, 2, boss, ann, active=False)
    with pytest.raises(UserError, match="account is closed"):
        do(people.accept, 3, token)
    with pytest.raises(UserError, match="account of Ann is closed"):
        do(people.invite, 3, "labeler", person=ann, life_ms=HOUR)


def test_a_member_goes_from_state_to_state(do, ann, project):
    p = project(onboarding=3)
    seen = []
    for now, state in [(1, None), (2, None), (3, "working"), (4, "working"), (5, "stopped"), (6, None)]:
        do(people.join, now, p, ann, state)
        seen += do(lambda conn: conn.execute(select(member.c.state, member.c.since_ms)).all())
    assert seen == [("training", 1), ("training", 1), ("working", 3), ("working", 3), ("stopped", 5), ("stopped", 5)]
    with pytest.raises(UserError, match="cannot be 'asleep'"):
        do(people.join, 7, p, ann, "asleep")
    with pytest.raises(UserError, match="no project of number 99"):
        do(people.join, 7, 99, ann)


def test_what_is_over_is_swept_up_and_nothing_else(store, do, ann):
    kept = do(people.open_session, 1, ann, "key", "", 3 * HOUR)
    do(people.open_session, 1, ann, "browser", "", HOUR)
    used, open_ = do(people.invite, 1, "labeler", life_ms=HOUR * 3), do(people.invite, 1, "labeler", life_ms=HOUR * 3)
    do(people.invite, 1, "labeler", life_ms=HOUR)
    do(people.accept, 2, used, "Guest", WITHOUT_ARGON)
    assert do(people.tidy, 2 * HOUR) == 3
    assert (count(store, session), count(store, invite)) == (1, 1)
    assert do(people.who, 2 * HOUR, kept).id == ann
    assert do(people.accept, 2 * HOUR, open_, "Guest 2", WITHOUT_ARGON)


# ------------------------------------------------------------------------------------------------------ the audit


def test_the_audit_log_says_who_did_what(do, ann):
    first = do(people.audit, 5, ann, "invite", {"role": "labeler", "note": "é\0"}, "127.0.0.1")
    second = do(people.audit, 6, None, "export", {})
    assert second > first
    rows = do(lambda conn: conn.execute(select(tables.audit).order_by(tables.audit.c.seq)).mappings().all())
    assert [(row["at_ms"], row["person"], row["act"], row["about"], row["address"]) for row in rows] == [
        (5, ann, "invite", {"role": "labeler", "note": "é\0"}, "127.0.0.1"),
        (6, None, "export", {}, ""),
    ]


@pytest.mark.parametrize("word", ["password", "token", "key", "secret"])
def test_the_audit_log_takes_no_secrets(do, ann, word):
    with pytest.raises(AssertionError, match="secrets do not go"):
        do(people.audit, 5, ann, "login", {word: "x"})


def test_an_act_and_its_line_in_the_log_are_kept_together_or_not_at_all(store, do, ann):
    def both(conn):
        people.join(conn, 1, 99, ann, "working")
        people.audit(conn, 1, ann, "join", {})

    with pytest.raises(UserError):
        store.write(both)
    assert count(store, tables.audit) == 0


def test_changing_the_name_of_somebody_changes_nothing_said_about_them(store, do, ann):
    do(people.audit, 5, ann, "x", {})
    do(lambda conn: conn.execute(update(person).values(name="Anna")).rowcount)
    assert do(people.find_person, "anna") == ann
