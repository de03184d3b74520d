"""Canaries: what this package takes for granted of psycopg and Django.

When a release changes one of these, it is this file that should fail first.
"""

from __future__ import annotations

import inspect
from typing import Any

import psycopg
import pytest
from django.contrib.postgres import apps as postgres_apps
from django.contrib.postgres import operations, signals
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql import base, psycopg_any
from django.utils.functional import cached_property
from psycopg import generators, pq
from psycopg._connection_base import BaseConnection
from psycopg._cursor_base import BaseCursor
from psycopg._pipeline_base import BasePipeline
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresClientQuery
from psycopg._server_cursor_base import ServerCursorMixin
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.client_cursor import ClientCursorMixin
from psycopg.types import TypeInfo, TypesRegistry
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.hstore import register_hstore

from django_pg_hot_async._core import cursors, patches
from django_pg_hot_async._core import psycopg_internals as internals
from django_pg_hot_async._core.dumping import install, is_installed
from django_pg_hot_async._core.patches import DoesNotFit, Patch
from django_pg_hot_async._core.types import CITEXT, HSTORE, SURROGATES, Registry
from django_pg_hot_async._django import backend, contrib_postgres, version

from .scenarios import HAS_BINARY_HSTORE
from .test_memory import snapshot

ALL = [
    *cursors.PATCHES,
    *backend.PATCHES,
    *contrib_postgres.PATCHES,
    *version.patches(),
]


# The table of what is replaced


class Owner:
    def greet(self, name):
        return f"hello {name}"

    @property
    def size(self):
        return 1

    def leave(self):
        return "bye"


class Heir(Owner):
    pass


def louder(original):
    def greet(self, name):
        return original(self, name).upper()

    return greet


@pytest.fixture
def owner(monkeypatch):
    """A class to replace something of; nothing is remembered of it."""
    monkeypatch.setattr(patches, "_installed", set())
    return type("Owner", (), dict(vars(Owner)))


def test_a_patch_is_installed_once(owner):
    patch = Patch(owner, "greet", louder, ("self", "name"))
    for _ in range(2):
        patches.install([patch, Patch(owner, "greet", louder)])
        assert owner().greet("you") == "HELLO YOU"
    there = owner.greet
    patches.install([Patch(owner, "greet", lambda original: None)])
    assert owner.greet is there


@pytest.mark.parametrize(
    ("misfit", "message"),
    [
        (("missing", None), r"\.Owner\.missing does not exist"),
        (
            ("greet", ("self", "who")),
            r"greet takes self, name; expected self, who",
        ),
        (("greet", ("self", "name", "more")), r"expected self, name, more"),
        (("leave", ("self", "name")), r"Owner\.leave takes self; expected self, name"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_where_one_patch_does_not_fit_none_is_installed(
    owner, misfit, message, position
):
    before = dict(vars(owner))
    name, parameters = misfit
    table = [
        Patch(owner, "leave", lambda original: None, ("self",)),
        Patch(owner, "size", lambda original: None),
    ]
    table.insert(position, Patch(owner, name, lambda original: None, parameters))
    with pytest.raises(DoesNotFit, match=message):
        patches.install(table)
    assert dict(vars(owner)) == before
    # Nor is any taken for installed.
    patches.install([Patch(owner, "greet", louder, ("self",))])
    assert owner().greet("you") == "HELLO YOU"


def test_a_name_that_is_inherited_fits_where_that_is_said(owner):
    heir = type("Heir", (owner,), {})
    patch = Patch(heir, "greet", louder, ("self", "name"))
    with pytest.raises(DoesNotFit, match=r"Heir\.greet does not exist"):
        patches.install([patch])
    patches.install([Patch(heir, "greet", louder, ("self", "name"), is_inherited=True)])
    assert heir().greet("you") == "HELLO YOU"
    assert owner().greet("you") == "hello you"


def test_what_somebody_else_put_there_fits_and_is_called(owner):
    original = owner.greet
    owner.greet = lambda *args, **kwargs: original(*args, **kwargs) + "!"
    patches.install([Patch(owner, "greet", louder, ("self", "name"))])
    assert owner().greet("you") == "HELLO YOU!"


def test_what_has_no_signature_fits():
    """A class, or what is written in C, may not tell its parameters."""
    Patch(dict, "update", louder, ("self", "other")).verify()


def test_a_patch_of_a_module_is_called_by_its_name():
    patch = Patch(psycopg_any, "get_adapters_template", lambda original: None)
    assert str(patch) == f"{psycopg_any.__name__}.get_adapters_template"


@pytest.mark.parametrize("patch", ALL, ids=str)
def test_each_patch_stands_and_is_installed_once(patch):
    assert (id(patch.owner), patch.name) in patches._installed
    before = vars(patch.owner)[patch.name]
    patches.install(ALL)
    assert vars(patch.owner)[patch.name] is before


def test_no_name_is_replaced_twice():
    places = [(patch.owner, patch.name) for patch in ALL]
    assert len(set(places)) == len(places)


# psycopg: what is replaced

REPLACED = {
    (BaseCursor, "_execute_gen"): "self query params prepare binary",
    (BaseCursor, "_maybe_prepare_gen"): "self pgq prepare binary",
    (BaseCursor, "_set_results"): "self results",
    (BaseCursor, "_raise_for_result"): "self result",
    (BaseCursor, "_executemany_gen_pipeline"): "self query params_seq returning",
    (BaseCursor, "_stream_send_gen"): "self query params binary size",
    (BaseCursor, "_stream_fetchone_gen"): "self first",
    (BaseCursor, "_start_copy_gen"): "self statement params",
    (ServerCursorMixin, "_declare_gen"): "self query params binary",
    (ServerCursorMixin, "_describe_gen"): "self",
    (ServerCursorMixin, "_fetch_gen"): "self num",
    (BaseConnection, "_exec_command"): "self command result_format",
    (BasePipeline, "_enqueue_sync"): "self",
    (BasePipeline, "_fetch_gen"): "self flush",
}
NO_GENERATORS = {"_set_results", "_raise_for_result", "_enqueue_sync"}


def psycopgs_own(patch: Patch) -> Any:
    """Return what stood there before."""
    wrapper = vars(patch.owner)[patch.name]
    return inspect.getclosurevars(wrapper).nonlocals["original"]


def test_all_that_is_replaced_is_looked_at_here():
    assert {(patch.owner, patch.name) for patch in cursors.PATCHES} == {*REPLACED}


@pytest.mark.parametrize("patch", cursors.PATCHES, ids=str)
def test_what_is_replaced(patch):
    original = psycopgs_own(patch)
    assert original.__module__ == patch.owner.__module__
    parameters = " ".join(inspect.signature(original).parameters)
    assert parameters == REPLACED[patch.owner, patch.name]
    is_generator = patch.name not in NO_GENERATORS
    assert inspect.isgeneratorfunction(original) is is_generator


@pytest.mark.parametrize("patch", cursors.PATCHES, ids=str)
def test_what_takes_its_place_can_be_called_likewise(patch):
    taken = inspect.signature(vars(patch.owner)[patch.name]).parameters
    kinds = {one.kind for one in taken.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        assert " ".join(taken) == REPLACED[patch.owner, patch.name]


@pytest.mark.parametrize("patch", cursors.PATCHES, ids=str)
def test_no_class_derived_from_it_has_its_own(patch):
    """Else that would be called, and not what takes the place."""

    def heirs(cls):
        for heir in cls.__subclasses__():
            yield heir
            yield from heirs(heir)

    own = [one for one in heirs(patch.owner) if patch.name in vars(one)]
    assert [one for one in own if one.__module__.startswith("psycopg")] == []


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("_execute_gen", ("_start_query(", "_convert_query(", "_maybe_prepare_gen(")),
        ("_maybe_prepare_gen", ("_get_prepared(", "_check_results(", "_set_results(")),
        ("_executemany_gen_pipeline", ("_maybe_prepare_gen(", "_start_query(")),
        ("_stream_send_gen", ("_start_query(", "_convert_query(")),
        ("_stream_fetchone_gen", ("_raise_for_result(",)),
        ("_start_copy_gen", ("_start_query(", "_check_copy_result(")),
    ],
)
def test_what_a_cursor_goes_through(name, calls):
    [patch] = [one for one in cursors.PATCHES if one.name == name]
    source = inspect.getsource(psycopgs_own(patch))
    for call in calls:
        assert f"self.{call}" in source, call


def test_an_error_of_a_result_goes_through_what_is_replaced():
    assert "self._raise_for_result(" in inspect.getsource(BaseCursor._check_results)


# psycopg: what is called or read


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (BaseCursor._start_query, "self query"),
        (BaseCursor._convert_query, "self query params"),
        (BaseCursor._get_prepared, "self pgq prepare"),
        (BaseCursor._check_results, "self results"),
        (BaseCursor._check_copy_result, "self result"),
        (BaseCursor._reset, "self reset_query"),
        (BaseCursor._select_current_result, "self i format"),
        (BaseConnection._start_query, "self"),
        (BasePipeline._communicate_gen, "self"),
        (PrepareManager.clear, "self"),
        (PrepareManager.maintain_gen, "self conn"),
        (PrepareManager.key, "query"),
        (PrepareManager.maybe_add_to_cache, "self query prep name"),
        (PrepareManager.validate, "self key prep name results"),
        (PostgresClientQuery.convert, "self query vars"),
        (generators.execute, "pgconn"),
        (generators.send, "pgconn"),
        (generators.fetch_many, "pgconn"),
        (Transformer.set_pgresult, "self result set_loaders format"),
        (Transformer.load_rows, "self row0 row1 make_row"),
    ],
    ids=lambda one: getattr(one, "__qualname__", None),
)
def test_what_is_called(function, parameters):
    try:
        found = inspect.signature(function).parameters
    except ValueError:
        pytest.fail("it does not tell its parameters")
    assert " ".join(found) == parameters


@pytest.mark.parametrize("name", ["lock", "wait", "pgconn", "info", "adapters"])
def test_what_is_used_of_a_connection(green, name):
    with psycopg.connect(green.conninfo("shop")) as conn:
        assert hasattr(conn, name)
        assert conn.lock.acquire(blocking=False)
        conn.lock.release()


def test_what_is_read_of_a_connection_and_its_cursors(green):
    with psycopg.connect(green.conninfo("shop")) as conn:
        private: Any = conn
        assert (private._autocommit, private._pipeline) == (False, None)
        with conn.pipeline() as pipeline:
            assert private._pipeline is pipeline
            assert not pipeline.command_queue and not pipeline.result_queue
            assert pipeline.pgconn is conn.pgconn
        cursor = conn.cursor()
        assert cursor._conn is conn and cursor._pgconn is conn.pgconn
        assert cursor._closed is False
        assert cursor._adapters is cursor.adapters
        assert cursor._encoding == "utf-8"
        cursor.execute("select 1")
        assert isinstance(cursor._tx, Transformer)
        assert cursor._query is not None and cursor._query.query == b"select 1"
        assert cursor._last_query == "select 1"
        assert [one.status for one in cursor._results] == [pq.ExecStatus.TUPLES_OK]
        assert callable(cursor._make_row)
        with conn.cursor("named") as named:
            assert (named._name, named._described) == ("named", False)
            assert named._format is pq.Format.TEXT


def test_what_is_read_of_a_query(green):
    with psycopg.connect(green.conninfo("shop")) as conn:
        cursor = conn.cursor()
        cursor._tx = Transformer(cursor)
        pgq = cursor._convert_query("select %s, %b", ["x", 1])
        assert pgq.query == b"select $1, $2"
        assert pgq.types is not None and pgq.formats is not None
        assert len(pgq.types) == len(pgq.formats) == len(pgq.params or ()) == 2
        # Both can be set: they are sent as they are.
        pgq.types, pgq.params = (25, 21), [b"y", b"\0\2"]
        assert PrepareManager.key(pgq) == (b"select $1, $2", (25, 21))
        assert ClientCursorMixin._query_cls is PostgresClientQuery
        client = psycopg.ClientCursor(conn)
        client._tx = Transformer(client)
        assert client._convert_query("select %s", ["x"]).query == b"select 'x'"


def test_what_is_read_of_prepared_statements(green):
    with psycopg.connect(green.conninfo("shop"), autocommit=True) as conn:
        prepared = conn._prepared
        assert prepared.prepare_threshold == 5
        assert not internals.has_prepared_statements(conn)
        for _ in range(3):
            conn.execute("select 1")
        [(key, count)] = prepared._counts.items()
        assert (key, count) == ((b"select 1", ()), 3)
        conn.execute("select 1", prepare=True)
        [(key, name)] = prepared._names.items()
        assert key == (b"select 1", ())
        assert internals.has_prepared_statements(conn)
        of_server = "select name from pg_prepared_statements"
        assert conn.execute(of_server).fetchall() == [(name.decode(),)]
        internals.drop_prepared_statements(conn)
        assert not prepared._names and not prepared._counts
        assert [*prepared._to_flush] == [name]
        conn.execute("select 2")
        assert conn.execute(of_server).fetchall() == []
        conn.execute("select 1", prepare=True)
        conn.wait(internals.forget_prepared_statements(conn))
        assert not internals.has_prepared_statements(conn)
        assert conn.execute(of_server).fetchall() == []
        assert {*Prepare.__members__} == {"NO", "YES", "SHOULD"}


def test_start_query_begins_what_psycopg_begins(green):
    with psycopg.connect(green.conninfo("shop")) as conn:
        conn.wait(internals.start_query(conn))
        assert conn.info.transaction_status is pq.TransactionStatus.INTRANS


def test_an_info_is_what_a_composite_dumper_goes_by(green):
    """The binary format names the types of the attributes: those given later."""
    info = CompositeInfo(
        "pair", 70000, 70001, field_names=("a", "b"), field_types=(23, 1043)
    )
    adapters = AdaptersMap(psycopg.adapters)
    register_composite(info, psycopg.adapt.Transformer(adapters), tuple_like := Pair)
    dumper: Any = adapters.get_dumper(tuple_like, PyFormat.BINARY)(
        tuple_like, Transformer(adapters)
    )
    assert hasattr(dumper, "_field_types") or dumper.info is info
    internals.send_fields(
        dumper,
        CompositeInfo(
            "pair", 80000, 80001, field_names=("a", "b"), field_types=(23, 25)
        ),
    )
    data = bytes(dumper.dump(Pair(1, "x")))
    assert data[:12] == b"\0\0\0\2" + (23).to_bytes(4, "big") + b"\0\0\0\4"
    assert data[16:20] == (25).to_bytes(4, "big")


class Pair(tuple[Any, ...]):
    def __new__(cls, *values):
        return super().__new__(cls, values)


# psycopg: registries and adapters


def test_a_types_registry_shares_its_content_until_it_is_added_to():
    one = TypesRegistry(psycopg.adapters.types)
    assert one._registry is psycopg.adapters.types._registry
    assert one._own_state is False
    two = TypesRegistry(one)
    two.add(TypeInfo("x", 70000, 70001))
    assert two._registry is not one._registry
    assert two._own_state is True


def test_an_adapters_map_takes_the_types_given_to_it_to_its_children():
    adapters = AdaptersMap(psycopg.adapters)
    snapshot(20000).share_types(adapters)
    assert AdaptersMap(adapters).types["hstore"].oid == 20000


def test_shared_types_are_replaced_and_added_ones_kept():
    adapters = AdaptersMap(psycopg.adapters)
    snapshot(20000).share_types(adapters)
    snapshot(30000).share_types(adapters)
    assert adapters.types.get(20000) is None
    assert adapters.types["hstore"].oid == 30000
    adapters.types.add(TypeInfo("mine", 70000, 70001))
    snapshot(20000).share_types(adapters)
    assert adapters.types["mine"].oid == 70000
    assert adapters.types["hstore"].oid == 20000
    others = AdaptersMap(psycopg.adapters)
    snapshot(30000).share_types(others)
    assert others.types.get("mine") is None


def test_a_copy_of_shared_types_is_psycopgs_own():
    """A cursor has one, and what is added there stays there."""
    adapters = AdaptersMap(psycopg.adapters)
    one = snapshot(20000)
    one.share_types(adapters)
    assert isinstance(adapters.types, internals.SharedTypes)
    before = adapters.types
    one.share_types(adapters)
    assert adapters.types is before
    child = AdaptersMap(adapters)
    child.types.add(TypeInfo("mine", 70000, 70001))
    assert child.types["hstore"].oid == 20000
    assert adapters.types.get("mine") is None
    one.share_types(child)
    assert child.types["mine"].oid == 70000


def test_the_unknown_loader_gets_the_real_oid_and_may_return_another():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    assert is_installed(adapters)
    for format in pq.Format:
        known = psycopg.adapters.get_loader(0, format)
        assert known is not None
        assert type(Transformer(adapters).get_loader(99999, format)) is known
    asked = []
    text = psycopg.adapters.get_loader(25, pq.Format.TEXT)
    assert text is not None

    def resolve(oid, context=None):
        asked.append((oid, context))
        return text(oid, context)

    resolver: Any = resolve
    resolver.format = pq.Format.TEXT
    adapters.register_loader(0, resolver)
    transformer = Transformer(adapters)
    assert transformer.get_loader(99999, pq.Format.TEXT).load(b"x") == "x"
    assert asked == [(99999, transformer)]


def test_dumpers_by_oid_are_shared_with_copies_of_a_map():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    child = AdaptersMap(adapters)
    for format in pq.Format:
        assert internals.are_dumpers_resolved(child, format)
        # A copy of its own, as soon as something is registered there.
        child.register_dumper(None, psycopg.adapters.get_dumper_by_oid(25, format))
        assert internals.are_dumpers_resolved(child, format)
        assert not internals.are_dumpers_resolved(psycopg.adapters, format)
        transformer = Transformer(child)
        with pytest.raises(psycopg.ProgrammingError, match="cannot find a dumper"):
            transformer.set_dumper_types([99999], format)
        transformer.set_dumper_types([25], format)


def test_what_register_functions_register_is_found_again():
    adapters = AdaptersMap(psycopg.adapters)
    assert internals.dumped_types(adapters, psycopg.adapters) == {}
    assert internals.has_oids(adapters, 16384) == []
    register_hstore(TypeInfo("hstore", 70000, 70001), Transformer(adapters))
    formats = (pq.Format.TEXT, pq.Format.BINARY)[: 1 + HAS_BINARY_HSTORE]
    [(key, found)] = internals.dumped_types(adapters, psycopg.adapters).items()
    assert (key, {*found}) == (dict, {*formats})
    auto = adapters.get_dumper(dict, PyFormat.AUTO)
    assert found[-1] is auto.format
    assert internals.has_oids(adapters, 16384) == ["hstore"]
    text = psycopg.adapters.get_loader(25, pq.Format.TEXT)
    assert text is not None
    adapters.register_loader(90000, text)
    assert internals.has_oids(adapters, 16384) == ["OID 90000", "hstore"]


def test_installing_twice_changes_nothing():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    before = adapters.get_loader(0, pq.Format.TEXT)
    install(adapters)
    assert adapters.get_loader(0, pq.Format.TEXT) is before


def test_surrogates_are_beyond_every_oid_and_load():
    registry = Registry.of((HSTORE, CITEXT))
    assert Registry.of((HSTORE, CITEXT)) is registry
    hstore, citext = registry.absent
    assert min(hstore.oid, citext.oid) >= SURROGATES == 2**32
    loadable = {number for number, _ in {**hstore.loaders, **citext.loaders}}
    assert loadable == {hstore.oid, hstore.array_oid, citext.array_oid}


# Django


def test_the_template_is_made_by_a_function_that_two_modules_name():
    template = psycopg_any.get_adapters_template
    assert vars(base)["get_adapters_template"] is template
    assert "get_adapters_template" in inspect.getsource(
        base.DatabaseWrapper.get_connection_params
    )
    original = inspect.getclosurevars(template).nonlocals["original"]
    assert [*inspect.signature(original).parameters] == ["use_tz", "timezone"]


def test_the_names_of_django_contrib_postgres():
    """Each module that names one has it from `signals`: all are replaced."""
    replaced = {(patch.owner, patch.name) for patch in contrib_postgres.PATCHES}
    for name in ("register_type_handlers", "get_hstore_oids", "get_citext_oids"):
        for module in (signals, postgres_apps, operations):
            assert hasattr(module, name) is ((module, name) in replaced), name
            if hasattr(module, name):
                assert vars(module)[name] is vars(signals)[name]
    for name in ("get_hstore_oids", "get_citext_oids"):
        original = vars(signals)[name].__wrapped__
        assert original.__module__ == "django.contrib.postgres.signals", name
    wrapper = inspect.getclosurevars(signals.register_type_handlers)
    assert wrapper.nonlocals["original"].__module__ == "django.contrib.postgres.signals"


def test_errors_pass_by_a_cached_property():
    original = vars(BaseDatabaseWrapper)["wrap_database_errors"]
    assert isinstance(original, cached_property)
    assert "wrap_database_errors" in inspect.getsource(BaseDatabaseWrapper)
    noticing = vars(base.DatabaseWrapper)["wrap_database_errors"]
    assert isinstance(noticing, cached_property)
    assert noticing.func is backend.NoticingErrorWrapper
