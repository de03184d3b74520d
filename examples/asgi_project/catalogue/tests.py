"""``manage.py test``: the catalogue by itself, on whatever server it is given."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from unittest.mock import patch

from asgi_project import async_pool
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db.backends.postgresql.psycopg_any import DateRange
from django.forms import modelform_factory
from django.test import TestCase, TransactionTestCase
from psycopg.types.range import Range

from . import stream
from .jobs import follow_the_calendar
from .models import Product
from .values import Dimensions, Status

BOX = Dimensions(Decimal("30.00"), Decimal("20.50"), Decimal("0.25"), "cm")
SOLD = DateRange(date(2026, 1, 1), date(2027, 1, 1))
COOL = Range(2.0, 8.5)
SENT = {
    "name": "ice",
    "attributes": {"colour": "white", "gone": None},
    "labels": ["New", "cold, very"],
    "status": "on sale",
    "dimensions": ["30.00", "20.50", "0.25", "cm"],
    "valid": ["2026-01-01", "2027-01-01"],
    "stored_at": [2.0, 8.5],
}


def make(**columns: Any) -> Product:
    product = Product(
        **{
            "name": "ice",
            "attributes": {"colour": "white"},
            "labels": ["New"],
            "status": Status.ON_SALE,
            "dimensions": BOX,
            "valid": SOLD,
            "stored_at": COOL,
            **columns,
        }
    )
    product.full_clean()
    product.prove()
    product.save()
    return product


class ColumnsTest(TestCase):
    def test_values_come_back_as_they_were(self) -> None:
        product = Product.objects.get(pk=make().pk)
        self.assertIs(product.status, Status.ON_SALE)
        self.assertEqual(product.dimensions, BOX)
        self.assertIsInstance(product.dimensions, Dimensions)
        self.assertEqual(product.valid, SOLD)
        self.assertEqual(product.stored_at, COOL)

    def test_null(self) -> None:
        product = make(dimensions=None, valid=None, stored_at=None)
        product.refresh_from_db()
        empty = (product.dimensions, product.valid, product.stored_at)
        self.assertEqual(empty, (None, None, None))

    def test_values_to_look_for(self) -> None:
        make()
        make(name="box", status=Status.DRAFT, dimensions=None)
        looked_for: list[tuple[int, dict[str, Any]]] = [
            (1, {"status": Status.ON_SALE}),
            (2, {"status__in": [Status.ON_SALE, Status.DRAFT]}),
            (0, {"status": "retired"}),
            (1, {"dimensions": BOX}),
            (1, {"dimensions__isnull": True}),
            (2, {"stored_at__contains": 4.0}),
            (0, {"stored_at__contains": 9.0}),
            (2, {"stored_at": COOL}),
            (2, {"valid__contains": date(2026, 7, 1)}),
            (2, {"labels__contains": ["nEW"]}),
            (2, {"attributes__colour": "white"}),
        ]
        for number, condition in looked_for:
            with self.subTest(condition):
                self.assertEqual(Product.objects.filter(**condition).count(), number)

    def test_values_that_are_refused(self) -> None:
        for column, value in [
            ("status", "lost"),
            ("dimensions", ["1", "2", "cm"]),
            ("dimensions", ["1", "2", "3", "mile"]),
            ("dimensions", ["1", "2", "-3", "cm"]),
            ("dimensions", ["1", "2", "NaN", "cm"]),
            ("attributes", {"size": 3}),
        ]:
            with self.subTest(column=column), self.assertRaises(ValidationError):
                make(**{column: value})

    def test_fixture_is_read_as_it_was_written(self) -> None:
        product = make()
        fixture = serializers.serialize("json", [product])
        [read] = serializers.deserialize("json", fixture)
        for name in ("status", "dimensions", "valid", "stored_at", "labels"):
            self.assertEqual(getattr(read.object, name), getattr(product, name))

    def test_bulk_statements(self) -> None:
        call_command("seed", 20, stdout=StringIO())
        products = list(Product.objects.order_by("pk"))
        for product in products:
            product.status, product.dimensions = Status.RETIRED, BOX
        Product.objects.bulk_update(products, ["status", "dimensions"])
        retired = Product.objects.filter(status=Status.RETIRED, dimensions=BOX)
        self.assertEqual(retired.count(), 20)


class FormTest(TestCase):
    def test_what_is_shown_is_what_is_saved(self) -> None:
        product = make()
        form = modelform_factory(Product, exclude=["attributes", "labels"])
        shown = form(instance=product)
        data = {
            f"{field.html_name}{suffix}": value
            for field in shown
            for suffix, value in self.inputs(field)
        }
        self.assertEqual(data["dimensions_3"], "cm")
        saved = form(data, instance=Product.objects.get(pk=product.pk))
        self.assertTrue(saved.is_valid(), saved.errors)
        self.assertEqual(saved.changed_data, [])
        saved.save()
        again = Product.objects.get(pk=product.pk)
        self.assertEqual(again.dimensions, BOX)
        self.assertIs(again.status, Status.ON_SALE)
        self.assertEqual(again.valid, SOLD)

    def inputs(self, field: Any) -> list[tuple[str, Any]]:
        value = field.value()
        widget = field.field.widget
        if not hasattr(widget, "widgets"):
            return [("", value)]
        parts = value if isinstance(value, list) else widget.decompress(value)
        return [(f"_{n}", part) for n, part in enumerate(parts)]


class JobTest(TestCase):
    def test_drafts_go_on_sale_and_old_products_retire(self) -> None:
        today = date(2026, 11, 22)
        day = timedelta(days=1)
        draft = make(status=Status.DRAFT, valid=DateRange(today, None))
        early = make(status=Status.DRAFT, valid=DateRange(today + day, None))
        over = make(valid=DateRange(None, today))
        last = make(valid=DateRange(None, today + day))
        always = make(status=Status.DRAFT, valid=None)
        done = follow_the_calendar(today)
        self.assertEqual(done, {"put on sale": 1, "retired": 1})
        expected = {
            draft: Status.ON_SALE,
            early: Status.DRAFT,
            over: Status.RETIRED,
            last: Status.ON_SALE,
            always: Status.DRAFT,
        }
        for product, status in expected.items():
            product.refresh_from_db()
            self.assertIs(product.status, status)
            self.assertEqual(json.loads(product.proof)["status"], status.value)
        self.assertEqual(set(follow_the_calendar(today).values()), {0})


class ViewsTest(TransactionTestCase):
    """Not in one transaction: the raw view has connections of its own."""

    async def test_three_ways_give_the_same(self) -> None:
        try:
            answer = await self.async_client.post(
                "/async/products/", SENT, content_type="application/json"
            )
            self.assertEqual(answer.status_code, 201)
            [made] = answer.json()["products"]
            self.assertEqual(made, {**made, **SENT})
            for path in ("/products/", "/async/products/", "/raw/products/"):
                path += "?status=on+sale&on=2026-11-22"
                [row] = (await self.async_client.get(path)).json()["products"]
                self.assertEqual(row, {name: made[name] for name in row})
        finally:
            # Each test has an event loop of its own, and the pool is the loop's.
            await async_pool.close_pool()

    async def test_stream(self) -> None:
        """What has changed since the last one, told once; then it ends."""
        try:
            product = await Product.objects.acreate(name="new")
            earlier = (product.changed_at - timedelta(seconds=1)).isoformat()
            with patch.object(stream, "LASTS", 1.5):
                answer: Any = await self.async_client.get(
                    "/products/changes/", headers={"Last-Event-ID": earlier}
                )
                told = b"".join([part async for part in answer])
            self.assertEqual(told.count(b"event: product"), 1)
            self.assertIn(f"id: {product.changed_at.isoformat()}\n".encode(), told)
        finally:
            await async_pool.close_pool()

    async def test_client_errors(self) -> None:
        for path in ("/products/?status=lost", "/async/products/?on=today"):
            self.assertEqual((await self.async_client.get(path)).status_code, 400)
        for body in (b"", b"[]", b'{"id": 3}', b'{"name": "x", "valid": 7}'):
            for path in ("/products/", "/async/products/"):
                answer = await self.async_client.post(
                    path, body, content_type="application/json"
                )
                self.assertEqual(answer.status_code, 400)
        for path in ("/products/0/", "/async/products/0/"):
            for method in (self.async_client.get, self.async_client.post):
                self.assertEqual((await method(path)).status_code, 404)
