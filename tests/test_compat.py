"""Canaries: what this package takes for granted of psycopg and Django.

When a release changes one of these, it is this file that should fail first.
"""

from __future__ import annotations

import inspect

import psycopg
import pytest
from django.contrib.postgres import apps as postgres_apps
from django.contrib.postgres import operations, signals
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql import base, psycopg_any
from django.utils.functional import cached_property
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.types import TypeInfo, TypesRegistry

from django_pg_hot_async import _adapters, _compat, _contrib
from django_pg_hot_async._core.types import CITEXT, HSTORE, STAND_INS, Registry
from django_pg_hot_async._core.dumping import install, is_installed

from .test_memory import snapshot


def test_a_types_registry_shares_its_content_until_it_is_added_to():
    one = TypesRegistry(psycopg.adapters.types)
    assert one._registry is psycopg.adapters.types._registry
    two = TypesRegistry(one)
    two.add(TypeInfo("x", 70000, 70001))
    assert two._registry is not one._registry


def test_an_adapters_map_takes_the_types_given_to_it_to_its_children():
    adapters = AdaptersMap(psycopg.adapters)
    adapters.types = TypesRegistry(snapshot(20000).types)
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
    assert snapshot(30000).types.get("mine") is None


def test_the_unknown_loader_gets_the_real_oid_and_may_return_another():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    assert is_installed(adapters)
    for format in pq.Format:
        known = psycopg.adapters.get_loader(0, format)
        assert known is not None
        assert type(psycopg.adapt.Transformer(adapters).get_loader(99999, format)) is (
            known
        )


def test_dumpers_by_oid_are_shared_with_copies_of_a_map():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    child = AdaptersMap(adapters)
    for format in pq.Format:
        # A copy of its own, as soon as something is registered there.
        child.register_dumper(None, psycopg.adapters.get_dumper_by_oid(25, format))
        transformer = psycopg.adapt.Transformer(child)
        with pytest.raises(psycopg.ProgrammingError, match="cannot find a dumper"):
            transformer.set_dumper_types([99999], format)
        transformer.set_dumper_types([25], format)


def test_installing_twice_changes_nothing():
    adapters = AdaptersMap(psycopg.adapters)
    install(adapters)
    before = adapters.get_loader(0, pq.Format.TEXT)
    install(adapters)
    assert adapters.get_loader(0, pq.Format.TEXT) is before


@pytest.mark.parametrize(
    ("generator", "parameters"),
    [
        (_compat._start_query, "self query"),
        (_compat._stream_send_gen, "self query params binary size"),
        (_compat._start_copy_gen, "self statement params"),
        (_compat._executemany_gen_pipeline, "self query params_seq returning"),
        (psycopg.Pipeline._enter_gen, "self"),
        (psycopg.Connection._start_query, "self"),
    ],
)
def test_what_executions_begin_with(generator, parameters):
    assert inspect.isgeneratorfunction(generator)
    assert " ".join(inspect.signature(generator).parameters) == parameters


@pytest.mark.parametrize("enter", [_compat._enter_pipeline, _compat._aenter_pipeline])
def test_what_a_pipeline_begins_with(enter):
    source = inspect.getsource(enter)
    # It has one of its own since psycopg 3.2.10.
    has_own = "_no_lock" in inspect.signature(psycopg.Pipeline).parameters
    assert ("self._lock" if has_own else "self._conn.lock") in source
    assert "self._conn.wait(self._enter_gen())" in source


def test_stand_ins_are_beyond_every_oid_and_load():
    registry = Registry.of((HSTORE, CITEXT))
    assert Registry.of((HSTORE, CITEXT)) is registry
    hstore, citext = registry.absent
    assert min(hstore.oid, citext.oid) >= STAND_INS == 2**32
    loadable = {number for number, _ in {**hstore.loaders, **citext.loaders}}
    assert loadable == {hstore.oid, hstore.array_oid, citext.array_oid}


def test_the_template_is_made_by_a_function_that_two_modules_name():
    assert psycopg_any.get_adapters_template is _adapters.get_adapters_template
    assert vars(base)["get_adapters_template"] is _adapters.get_adapters_template
    assert "get_adapters_template" in inspect.getsource(
        base.DatabaseWrapper.get_connection_params
    )
    parameters = inspect.signature(_adapters._djangos).parameters
    assert list(parameters) == ["use_tz", "timezone"]


def test_the_names_of_django_contrib_postgres():
    for name, holders in _contrib._HOLDERS.items():
        for module in (signals, postgres_apps, operations):
            assert hasattr(module, name) is (module in holders), (module, name)
    for name, function in _contrib._DJANGOS.items():
        assert function.__module__ == "django.contrib.postgres.signals", name


def test_errors_pass_by_a_cached_property():
    original = vars(BaseDatabaseWrapper)["wrap_database_errors"]
    assert isinstance(original, cached_property)
    assert "wrap_database_errors" in inspect.getsource(BaseDatabaseWrapper)


@pytest.mark.parametrize("name", ["lock", "wait", "pgconn", "info", "adapters"])
def test_what_is_used_of_a_connection(green, name):
    with psycopg.connect(green.conninfo("shop")) as conn:
        assert hasattr(conn, name)
        assert conn.lock.acquire(blocking=False)
        conn.lock.release()
