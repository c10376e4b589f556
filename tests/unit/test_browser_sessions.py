"""Sessions of browsers: what a cookie is worth, for how long, and what else a page has to show."""

from __future__ import annotations

from tests.support.clock import FakeClock

from hearth.authorize.sessions import LIFE_S, MAX_OF_TOKEN, MAX_SESSIONS, Sessions


def test_a_session_stands_for_its_token_until_it_ends() -> None:
    sessions = Sessions(FakeClock())
    one, other = sessions.begin(b"first"), sessions.begin(b"second")
    assert (sessions.token(one), sessions.token(other)) == (b"first", b"second")
    sessions.end(one)
    assert (sessions.token(one), sessions.token(other)) == (b"", b"second")
    sessions.end(one)


def test_a_session_ends_by_itself() -> None:
    clock = FakeClock()
    sessions = Sessions(clock)
    session_id = sessions.begin(b"token")
    clock.advance(LIFE_S - 1)
    assert sessions.token(session_id) == b"token"
    clock.advance(1)
    assert sessions.token(session_id) == b""
    assert repr(sessions) == "<Sessions 0>"


def test_a_clock_that_is_set_ends_no_session_and_prolongs_none() -> None:
    clock = FakeClock()
    sessions = Sessions(clock)
    session_id = sessions.begin(b"token")
    for change in (10 * LIFE_S, -20 * LIFE_S):
        clock.set_wall(change)
        assert sessions.token(session_id) == b"token"
    clock.advance(LIFE_S)
    assert sessions.token(session_id) == b""


def test_nothing_else_is_a_session() -> None:
    sessions = Sessions(FakeClock())
    session_id = sessions.begin(b"token")
    for wrong in ("", "token", session_id[:-1], f"{session_id}x"):
        assert sessions.token(wrong) == b""


def test_sessions_are_bounded_and_the_oldest_gives_way() -> None:
    sessions = Sessions(FakeClock())
    begun = [sessions.begin(b"%d" % number) for number in range(MAX_SESSIONS + 1)]
    assert sessions.token(begun[0]) == b""
    assert sessions.token(begun[1]) == b"1"
    assert sessions.token(begun[-1]) == b"%d" % MAX_SESSIONS


def test_who_logs_in_again_and_again_ends_no_session_of_another_token() -> None:
    sessions = Sessions(FakeClock())
    other = sessions.begin(b"other")
    own = [sessions.begin(b"own") for _ in range(MAX_SESSIONS + 1)]
    assert sessions.token(other) == b"other"
    assert [session_id for session_id in own if sessions.token(session_id)] == own[-MAX_OF_TOKEN:]


def test_a_page_key_belongs_to_one_session_of_one_node() -> None:
    sessions, elsewhere = Sessions(FakeClock()), Sessions(FakeClock())
    session_id = sessions.begin(b"token")
    key = sessions.page_key(session_id)
    assert sessions.is_page_key(session_id, key)
    assert not sessions.is_page_key("", key)
    assert not sessions.is_page_key(session_id, sessions.page_key(""))
    assert not elsewhere.is_page_key(session_id, key)
    for wrong in ("", key[:-1], f"{key}0", "é"):
        assert not sessions.is_page_key(session_id, wrong)
