"""What is remembered, for how long it is trusted, and how much of it there is."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from django_pg_hot_async import _connections, _memory, pool
from django_pg_hot_async._core.catalog import Catalog, TypeRow
from django_pg_hot_async._memory import Alias
from django_pg_hot_async._core.types import CITEXT, HSTORE, Registry
from django_pg_hot_async._core.server import Server
from django_pg_hot_async._core.snapshot import Snapshot
from django_pg_hot_async.conf import Trust

REGISTRY = Registry.of((HSTORE, CITEXT))
STAND_IN = REGISTRY.absent[0].oid


def server(port=1, dbname="shop", version=150018):
    return Server(version, "127.0.0.1", str(port), dbname)


def snapshot(oid, kind="b"):
    row = TypeRow("hstore", "public", oid, oid + 5, kind, ",", "hstore", True)
    return Snapshot.of(Catalog(150018, (row,)), REGISTRY)


@pytest.fixture
def alias():
    return Alias("default", Trust.CONNECTION)


def test_equal_answers_are_one_object():
    assert snapshot(20000) is snapshot(20000)
    assert snapshot(20000) is not snapshot(20001)


def test_snapshot_maps_oids_to_stand_ins_and_back():
    one = snapshot(4_000_000_000)
    assert one.stand_ins == {4_000_000_000: STAND_IN, 4_000_000_005: STAND_IN + 1}
    assert one.oids == {STAND_IN: 4_000_000_000, STAND_IN + 1: 4_000_000_005}
    assert {name: row.oid for name, row in one.by_name().items()} == {
        "hstore": 4_000_000_000
    }


def test_a_table_called_hstore_is_no_hstore():
    assert snapshot(20000, kind="c").stand_ins == {}


def test_of_two_types_of_one_name_the_visible_one_is_sent():
    rows = [
        TypeRow("hstore", "here", 30000, 30005, "b", ",", "hstore", True),
        TypeRow("hstore", "there", 40000, 40005, "b", ",", "there.hstore", False),
    ]
    for order in (rows, rows[::-1]):
        both = Snapshot.of(Catalog(150018, tuple(order)), REGISTRY)
        assert both.oids[STAND_IN] == 30000
        assert set(both.stand_ins) == {30000, 30005, 40000, 40005}
        assert both.types["hstore"].oid == 30000
        assert both.types[40000].regtype == "there.hstore"


def test_recall_is_by_everything_a_connection_shows(alias):
    alias.learn(server(1), snapshot(20000), epoch=0, moved=False)
    assert alias.recall(server(1)).snapshot is snapshot(20000)
    for other in (server(2), server(1, "tenant"), server(1, version=180006)):
        assert alias.recall(other) is None


def test_another_answer_withdraws_trust_and_is_a_change(alias):
    assert alias.learn(server(), snapshot(20000), epoch=0, moved=False) == (0, None)
    epoch, change = alias.learn(server(), snapshot(20001), epoch=0, moved=False)
    assert epoch == alias.epoch == 1
    assert (change.old, change.new) == (snapshot(20000), snapshot(20001))


def test_two_servers_at_one_address_settle(alias):
    """Else each connection's read would withdraw the trust in all the others'."""
    for _ in range(5):
        for oid in (20000, 20001, 20002):
            alias.learn(server(), snapshot(oid), epoch=alias.epoch, moved=False)
    assert alias.epoch == 2


def test_a_connection_that_moved_withdraws_trust_each_time(alias):
    for turn in range(1, 5):
        one = snapshot(20000 + turn % 2)
        alias.learn(server(), one, epoch=alias.epoch, moved=True)
        assert alias.epoch == turn


def test_trust_withdrawn_during_a_read_is_not_given_by_it(alias):
    asked_in = alias.epoch
    alias.withdraw()
    epoch, _ = alias.learn(server(), snapshot(20000), epoch=asked_in, moved=False)
    assert epoch == asked_in < alias.epoch


def test_what_was_asked_before_trust_was_withdrawn_is_not_recalled(alias):
    alias.learn(server(), snapshot(20000), epoch=alias.epoch, moved=False)
    for oid in (20000, 30000):
        asked_in = alias.epoch
        alias.withdraw()
        alias.learn(server(), snapshot(oid), epoch=asked_in, moved=False)
        assert alias.recall(server()) is None
    alias.learn(server(), snapshot(30000), epoch=alias.epoch, moved=False)
    assert alias.recall(server()) is not None


def test_forget_in_a_signal_handler_that_interrupts_another(alias, monkeypatch):
    def interrupted(old, key, value):
        monkeypatch.undo()
        alias.withdraw()
        return _memory._with(old, key, value)

    monkeypatch.setattr(_memory, "_with", interrupted)
    done = threading.Thread(target=alias.arrive, args=[server()], daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()


def test_withdrawn_answers_are_not_recalled_but_compared_with(alias):
    alias.learn(server(), snapshot(20000), epoch=0, moved=False)
    alias.withdraw()
    assert alias.recall(server()) is None
    _, change = alias.learn(server(), snapshot(20000), epoch=1, moved=False)
    assert change is None
    assert alias.recall(server()).snapshot is snapshot(20000)
    alias.withdraw()
    _, change = alias.learn(server(), snapshot(20009), epoch=2, moved=False)
    assert change is not None


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
    monkeypatch.setattr(_memory, "monotonic", lambda: now)
    assert alias.arrive(server(1)).is_return
    assert alias.arrive(server(2)).is_return
    assert alias.arrive(server(1)) is None


def test_other_databases_of_an_alias_are_no_news(alias):
    assert alias.arrive(server(1, "a")) is None
    assert alias.arrive(server(1, "b")) is None
    assert alias.arrive(server(2, "b")).old_server == server(1, "b")


def test_hundreds_of_tenants_are_bounded(alias):
    answer = snapshot(20000)
    for number in range(300):
        alias.arrive(server(1, f"tenant {number}"))
        alias.learn(server(1, f"tenant {number}"), answer, epoch=0, moved=False)
    assert len(alias.servers) == _memory.SERVERS_AN_ALIAS
    assert alias.recall(server(1, "tenant 299")) is not None
    assert alias.recall(server(1, "tenant 0")) is None
    assert alias.epoch == 0


def test_untracked_oids_are_bounded(alias):
    alias.learn(server(), snapshot(20000), epoch=0, moved=False)
    for oid in range(3000):
        alias.learn_untracked(server(), snapshot(20000), [oid])
    assert 0 < len(alias.recall(server()).untracked) <= _memory.UNTRACKED_OIDS


def test_untracked_oids_are_those_of_the_answer_at_hand(alias):
    """Another thread may have read, or doubted, what is there since."""
    alias.learn(server(), snapshot(20000), epoch=0, moved=False)
    alias.learn(server(), snapshot(30000), epoch=0, moved=False)
    alias.learn_untracked(server(), snapshot(20000), [20001])
    assert not alias.recall(server()).untracked
    alias.withdraw()
    alias.learn_untracked(server(), snapshot(30000), [30001])
    alias.learn(server(), snapshot(30000), epoch=alias.epoch, moved=False)
    assert not alias.recall(server()).untracked


def test_a_signal_handler_waits_for_no_lock_of_its_own_thread():
    """It may begin a unit of work, or forget, whatever it interrupts."""
    for lock in (_memory._lock, _connections._lock):
        with lock:
            assert lock.acquire(blocking=False)
            lock.release()


def test_many_threads_lose_nothing(alias):
    answer = snapshot(20000)
    barrier = threading.Barrier(8)

    def learn(thread):
        barrier.wait()
        for number in range(200):
            alias.learn(server(thread, str(number % 4)), answer, epoch=0, moved=False)
            alias.withdraw()
            _memory.alias(f"alias {thread}")

    threads = [threading.Thread(target=learn, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alias.epoch == alias.reads == 8 * 200
    assert len(alias.servers) == 8 * 4
    assert len(_memory.aliases()) == 8


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
