"""What is remembered, for how long it is trusted, and how much of it there is."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg import pq

from django_pg_hot_async import pool
from django_pg_hot_async._core import runtime as _runtime
from django_pg_hot_async._core import snapshot as _snapshot
from django_pg_hot_async._core import types as _types
from django_pg_hot_async._core.catalog import Catalog, TypeRow
from django_pg_hot_async._core.runtime import Alias, Runtime, runtime
from django_pg_hot_async._core.server import Server
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async._core.trust import Trust
from django_pg_hot_async._core.types import CITEXT, HSTORE, Registry

REGISTRY = Registry.of((HSTORE, CITEXT))
SURROGATE = REGISTRY.absent[0].oid


def server(port=1, dbname="shop", version=150018):
    return Server(version, "127.0.0.1", str(port), dbname)


def snapshot(oid, kind="b", start=1):
    """What a server whose postmaster started at *start* has told of hstore."""
    row = TypeRow("hstore", "public", oid, oid + 5, kind, ",")
    catalog = Catalog(
        150018,
        start,
        types=(row,),
        visible=frozenset([oid]),
        confirmed=(oid, oid + 5),
        names="{hstore,hstore[]}",
    )
    return Snapshot(catalog, REGISTRY)


@pytest.fixture
def alias():
    own = Runtime()
    own.registry = REGISTRY
    return Alias(own, "default", Trust.CONNECTION)


def confirmed(alias, server):
    return alias.confirmation(server, is_ascii=True, is_iso=True, wants_pid=True)


def test_equal_types_are_one_surrogate():
    """Under whatever OIDs servers have them: psycopg keeps each number for good."""
    one, other = snapshot(20000), snapshot(20001)
    assert [*one.rows.values()] == [*other.rows.values()] == [REGISTRY.absent[0]]


def test_snapshot_maps_oids_to_surrogates_and_back():
    one = snapshot(4_000_000_000)
    assert one.numbers == {4_000_000_000: SURROGATE, 4_000_000_005: SURROGATE + 1}
    assert one.oid_of(SURROGATE) == 4_000_000_000
    assert one.oid_of(SURROGATE + 1) == 4_000_000_005
    for format in pq.Format:
        assert one.loaders[format].keys() <= {4_000_000_000, 4_000_000_005}
    assert {name: row.oid for name, row in one.by_name().items()} == {
        "hstore": 4_000_000_000
    }


def test_a_table_called_hstore_is_no_hstore():
    one = snapshot(20000, kind="c")
    assert (one.rows, one.numbers, one.sent) == ({}, {}, {})
    assert one.oid_of(SURROGATE) is None


def test_of_two_types_of_one_name_the_visible_one_is_sent():
    rows = [
        TypeRow("hstore", "here", 30000, 30005, "b", ","),
        TypeRow("hstore", "there", 40000, 40005, "b", ","),
    ]
    for order in (rows, rows[::-1]):
        visible = frozenset([30000])
        both = Snapshot(Catalog(150018, types=(*order,), visible=visible), REGISTRY)
        assert both.ambiguous == {HSTORE}
        assert both.oid_of(SURROGATE) == 30000
        assert set(both.numbers) == {30000, 30005, 40000, 40005}
        last = both.infos[-1]
        assert (last.oid, last.regtype) == (30000, '"here"."hstore"')
        assert {info.regtype for info in both.infos} == {
            '"here"."hstore"',
            '"there"."hstore"',
        }
        other = both.seen_from(frozenset([40000]))
        assert other.oid_of(SURROGATE) == 40000
        assert other.numbers == both.numbers
        # With neither in the search_path, the server infers the type.
        assert both.seen_from(frozenset()).oid_of(SURROGATE) == 0


def test_recall_is_by_everything_a_connection_shows(alias):
    alias.learn(server(1), snapshot(20000))
    assert alias.recall(server(1)).snapshot.numbers == snapshot(20000).numbers
    for other in (server(2), server(1, "tenant"), server(1, version=180006)):
        assert alias.recall(other) is None
        assert confirmed(alias, other) is None


def test_another_answer_withdraws_trust_and_is_a_change(alias):
    old, new = snapshot(20000), snapshot(20001)
    assert alias.learn(server(), old) is None
    assert alias.generation == 0
    change = alias.learn(server(), new)
    assert alias.generation == alias.differences == alias.changes == 1
    assert (change.old, change.new, change.is_return) == (old, new, False)


def test_the_same_answer_again_withdraws_nothing(alias):
    for _ in range(3):
        assert alias.learn(server(), snapshot(20000)) is None
    assert (alias.generation, alias.differences, alias.reads) == (0, 0, 3)


def test_two_servers_at_one_address_are_confirmed_together(alias):
    """So that no connection that is moved between them needs a read."""
    starts = (1, 2, 3)
    for start in starts:
        alias.learn(server(), snapshot(20000 + start, start=start))
    known = alias.recall(server())
    assert [one.catalog.start for one in known.snapshots] == [3, 2, 1]
    statement = confirmed(alias, server()).statement
    for start in starts:
        assert b"%d,%d" % (20000 + start, 20005 + start) in statement
    alias.promote(server(), snapshot(20001, start=1))
    known = alias.recall(server())
    assert [one.catalog.start for one in known.snapshots] == [1, 3, 2]
    # None of it is a read that found something else.
    generation = alias.generation
    assert generation == 2
    alias.promote(server(), snapshot(20003, start=3))
    assert alias.generation == generation


def test_servers_that_look_alike_are_bounded(alias):
    for start in range(1, 50):
        alias.learn(server(), snapshot(20000 + start, start=start))
    known = alias.recall(server())
    assert len(known.snapshots) == _runtime.SERVERS_ALIKE
    assert known.snapshot.catalog.start == 49


def test_types_made_anew_replace_what_they_were(alias):
    """On one server, what is gone can never be confirmed again."""
    alias.learn(server(), snapshot(20000))
    alias.learn(server(), snapshot(30000))
    [only] = alias.recall(server()).snapshots
    assert only.oid_of(SURROGATE) == 30000


def test_confirmations_are_made_once(alias):
    alias.learn(server(), snapshot(20000))
    assert confirmed(alias, server()) is confirmed(alias, server())
    first = confirmed(alias, server())
    alias.learn(server(), snapshot(30000))
    assert confirmed(alias, server()) is not first


def test_what_was_read_before_trust_was_withdrawn_is_not_recalled(alias):
    alias.learn(server(), snapshot(20000))
    for oid in (20000, 30000):
        alias.withdraw()
        assert alias.recall(server()) is None
        assert confirmed(alias, server()) is None
        alias.learn(server(), snapshot(oid))
        assert alias.recall(server()).snapshot.oid_of(SURROGATE) == oid


def test_what_was_read_for_other_types_is_not_recalled(alias):
    alias.learn(server(), snapshot(20000))
    alias._runtime.registry = Registry.of((HSTORE,))
    assert alias.recall(server()) is None


def test_forget_in_a_signal_handler_that_interrupts_another(alias, monkeypatch):
    def interrupted(old, key, value):
        monkeypatch.undo()
        alias.withdraw()
        return _runtime._with(old, key, value)

    monkeypatch.setattr(_runtime, "_with", interrupted)
    done = threading.Thread(target=alias.arrive, args=[server()], daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()


def test_withdrawn_answers_are_not_recalled_but_compared_with(alias):
    alias.learn(server(), snapshot(20000))
    alias.withdraw()
    assert alias.recall(server()) is None
    assert alias.learn(server(), snapshot(20000)) is None
    assert alias.recall(server()).snapshot.oid_of(SURROGATE) == 20000
    alias.withdraw()
    assert alias.learn(server(), snapshot(20009)) is not None


def test_arrivals_are_news_once_a_server(alias):
    assert alias.arrive(server(1)) is None
    change = alias.arrive(server(2))
    assert (change.old_server, change.new_server) == (server(1), server(2))
    assert not change.is_return
    assert alias.arrive(server(1)) is None
    assert alias.arrive(server(2)) is None
    assert alias.current == server(2)


def test_a_way_back_is_told_after_a_while(alias, monkeypatch):
    alias.arrive(server(1))
    alias.arrive(server(2))
    now = time.monotonic() + 60
    monkeypatch.setattr(_runtime, "monotonic", lambda: now)
    assert alias.arrive(server(1)).is_return
    assert alias.arrive(server(2)).is_return
    assert alias.arrive(server(1)) is None


def test_a_way_back_of_a_pooler_is_told_after_a_while(alias, monkeypatch):
    """What the connection shows stays the same; what answers does not."""
    one, other = snapshot(20000, start=1), snapshot(30000, start=2)
    assert alias.learn(server(), one) is None
    assert not alias.learn(server(), other).is_return
    assert alias.meet(server(), one) is None
    assert alias.meet(server(), other) is None
    now = time.monotonic() + 60
    monkeypatch.setattr(_runtime, "monotonic", lambda: now)
    assert alias.meet(server(), one).is_return
    assert alias.meet(server(), one) is None
    assert alias.changes == 1


def test_other_databases_of_an_alias_are_no_news(alias):
    assert alias.arrive(server(1, "a")) is None
    assert alias.arrive(server(1, "b")) is None
    assert alias.arrive(server(2, "b")).old_server == server(1, "b")


def test_hundreds_of_tenants_are_bounded(alias):
    answer = snapshot(20000)
    for number in range(300):
        alias.arrive(server(1, f"tenant {number}"))
        alias.learn(server(1, f"tenant {number}"), answer)
        confirmed(alias, server(1, f"tenant {number}"))
    assert len(alias.servers) == _runtime.SERVERS_AN_ALIAS
    assert alias.recall(server(1, "tenant 299")) is not None
    assert alias.recall(server(1, "tenant 0")) is None
    assert alias.generation == 0
    for table in ("_latest", "_read", "_seen", "_met"):
        assert len(getattr(alias, table)) <= _runtime.SERVERS_AN_ALIAS


def test_statements_known_to_be_bare_are_bounded(alias):
    for number in range(3 * _runtime.BARE_STATEMENTS):
        alias.mark_bare(f"select {number}")
    assert len(alias._bare) == _runtime.BARE_STATEMENTS
    assert alias.is_bare(f"select {number}") and not alias.is_bare("select 0")
    alias.unmark_bare(f"select {number}")
    assert not alias.is_bare(f"select {number}")
    alias.mark_bare("x" * (_runtime.BARE_LENGTH + 1))
    assert len(alias._bare) == _runtime.BARE_STATEMENTS - 1


def test_reasons_to_doubt_are_bounded(alias):
    for number in range(300):
        assert alias.may_doubt(number)
        assert not alias.may_doubt(number)
    assert len(alias._reasons) <= _runtime.SERVERS_AN_ALIAS


def test_untracked_oids_are_bounded(monkeypatch):
    monkeypatch.setattr(_snapshot, "MAX_UNTRACKED", 100)
    one = snapshot(20000)
    for oid in range(30000, 33000):
        answer = Catalog(150018, 1, asked={oid: "public.other"})
        assert one.extended(answer, [oid]) is one
    assert [*one.untracked] == [*range(32900, 33000)]
    assert one.knows(32999) and not one.knows(30000)


def test_types_of_one_server_are_bounded(monkeypatch):
    """Tenants by schema, in thousands: those met first are forgotten."""
    monkeypatch.setattr(_snapshot, "MAX_TYPES", 100)
    one = snapshot(20000)
    for oid in range(30000, 31000, 2):
        row = TypeRow("hstore", f"s{oid}", oid, oid + 1, "b", ",")
        answer = Catalog(150018, 1, types=(row,), asked={oid: f"s{oid}.hstore"})
        one = one.extended(answer, [oid])
    assert len(one.catalog.types) == 100
    assert one.knows(30998) and not one.knows(20000)


def test_search_paths_are_bounded():
    one = snapshot(20000)
    for number in range(3 * _snapshot.MAX_PATHS):
        assert one.seen_from(frozenset([20000, number])).rows == one.rows
    assert len(one._paths) <= _snapshot.MAX_PATHS


def test_what_is_learnt_of_one_server_is_not_another_servers(alias):
    """Another thread may have read, or doubted, what is there since."""
    row = TypeRow("hstore", "other", 40000, 40005, "b", ",")
    answer = Catalog(150018, 1, types=(row,), asked={40000: "other.hstore"})
    one, other = snapshot(20000, start=1), snapshot(30000, start=2)
    alias.learn(server(), one)
    alias.learn(server(), other)
    alias.extend(server(), one.extended(answer, [40000]))
    newest, before = alias.recall(server()).snapshots
    assert not newest.knows(40000) and before.knows(40000)


def test_a_signal_handler_waits_for_no_lock_of_its_own_thread():
    """It may forget, whatever it interrupts."""
    for lock in (runtime.lock, _types._lock):
        with lock:
            assert lock.acquire(blocking=False)
            lock.release()


def test_many_threads_lose_nothing(alias):
    answer = snapshot(20000)
    barrier = threading.Barrier(8)
    own = alias._runtime

    def learn(thread):
        barrier.wait()
        for number in range(200):
            alias.learn(server(thread, str(number % 4)), answer)
            alias.withdraw()
            own.alias(f"alias {thread}")

    threads = [threading.Thread(target=learn, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alias.generation == alias.reads == 8 * 200
    assert len(alias.servers) == 8 * 4
    assert len(own.aliases) == 8


def test_connections_of_ones_own_leave_nothing(green):
    """psycopg keeps whatever is registered as a loader: nothing new for each."""

    def use(times):
        for _ in range(times):
            with psycopg.connect(green.conninfo("shop")) as connection:
                pool.configure("mine")(connection)
                row = connection.execute("select attrs from product").fetchone()
                assert row is not None and row[0]["weight"] == "9 kg"
        return len(psycopg.adapters._optimised)

    assert use(3) == use(10)
