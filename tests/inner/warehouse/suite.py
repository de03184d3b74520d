"""The inner project's own tests, run by ``manage.py test``."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import connection as _connection
from django.db import reset_queries, transaction
from django.db.backends.utils import CursorWrapper
from django.test import TestCase, TransactionTestCase, override_settings

from django_pg_hot_async import forget

from . import models

connection: Any = _connection
Item: Any = models.Item
VALUES: dict[str, Any] = {
    "attrs": {"weight": "9 kg", "gone": None},
    "tags": ["Heavy"],
    "parts": [{"bolt": "1"}, {}],
}
SEED = {"from": "migration"}


class Reading(TestCase):
    """Each of its kind in a class of its own, so that parallel runs divide them."""

    @classmethod
    def setUpTestData(cls):
        Item.objects.create(name="anvil", **VALUES)

    def check(self):
        item = Item.objects.get(name="anvil")
        self.assertEqual({name: getattr(item, name) for name in VALUES}, VALUES)
        self.assertEqual(Item.objects.get(name="seed").attrs, SEED)

    def test_right(self):
        self.check()

    def test_lookups(self):
        self.assertEqual(Item.objects.filter(attrs__weight="9 kg").count(), 1)
        self.assertEqual(Item.objects.filter(attrs__contains={"gone": None}).count(), 1)
        self.assertEqual(Item.objects.filter(tags__contains=["heavy"]).count(), 1)
        self.assertEqual(Item.objects.filter(attrs__has_key="from").count(), 1)


class ReadingToo(Reading):
    pass


class ReadingAsWell(Reading):
    pass


class Counting(TestCase):
    """What the application did not send is not counted, not shown and not wrapped."""

    def setUp(self):
        # So that the query at hand is the first use.
        if apps.is_installed("django_pg_hot_async"):
            forget()

    def test_assert_num_queries(self):
        with self.assertNumQueries(1):
            self.assertEqual(Item.objects.get(name="seed").attrs, SEED)
        with self.assertNumQueries(2):
            item = Item.objects.create(name="new", **VALUES)
            item.refresh_from_db()

    @override_settings(DEBUG=True)
    def test_connection_queries(self):
        reset_queries()
        list(Item.objects.filter(attrs={"a": "1"}))
        [query] = connection.queries
        self.assertIn('"warehouse_item"', query["sql"])

    def test_execute_wrapper(self):
        seen = []

        def wrapper(execute, sql, params, many, context):
            seen.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(wrapper):
            list(Item.objects.all())
        self.assertEqual(len(seen), 1)

    def test_cursors_wrapped_as_a_toolbar_does(self):
        """django-debug-toolbar puts a class of its own over each cursor."""
        recorded: list[Any] = []

        class Recording(CursorWrapper):
            def execute(self, sql, params=None):
                try:
                    return super().execute(sql, params)
                finally:
                    info = self.db.connection.info
                    recorded.append((sql, params, info.transaction_status.name))
                    self.db.ops.last_executed_query(self.cursor, sql, params)

        def cursor(*args, **kwargs):
            return Recording(original(*args, **kwargs).cursor, connection)

        original = connection.cursor
        connection.cursor = cursor
        try:
            self.assertEqual(Item.objects.get(name="seed").attrs, SEED)
            Item.objects.create(name="by toolbar", **VALUES)
            self.assertEqual(Item.objects.filter(attrs__contains=SEED).count(), 1)
        finally:
            del connection.cursor
        self.assertEqual(
            [(sql.split()[0], status) for sql, _, status in recorded],
            [("SELECT", "INTRANS"), ("INSERT", "INTRANS"), ("SELECT", "INTRANS")],
        )


class Committing(TransactionTestCase):
    """The flush after each test takes the seed; serialised rollback brings it back."""

    serialized_rollback = True

    def test_one(self):
        self.assertEqual(Item.objects.get(name="seed").attrs, SEED)
        with transaction.atomic():
            Item.objects.create(name="committed", **VALUES)
        self.assertEqual(Item.objects.get(name="committed").parts, VALUES["parts"])

    def test_two(self):
        self.test_one()

    def test_three(self):
        self.test_one()
