"""``manage.py seed``: fill the catalogue."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.backends.postgresql.psycopg_any import DateRange
from psycopg.types.range import Range

from catalogue.models import Product
from catalogue.values import Dimensions, Status, Unit

COLOURS = ["red", "green", "blue", "black", "white", 'off "white"', "grün"]
LABELS = ["New", "Sale", "Organic", "Fair Trade", "Vegan", 'So-called "best"', "Ökö"]


class Command(BaseCommand):
    help = "Add products until there are as many as asked for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("count", type=int, nargs="?", default=5000)

    def handle(self, *args: Any, count: int, **options: Any) -> None:
        chance = random.Random(15)
        present = Product.objects.count()
        Product.objects.bulk_create(
            (product(n, chance) for n in range(present + 1, count + 1)),
            batch_size=1000,
        )
        self.stdout.write(f"{Product.objects.count()} products")


def product(number: int, chance: random.Random) -> Product:
    """Make up a product, some of it hard to quote."""
    made = Product(
        name=f"Product {number}",
        price=Decimal(chance.randint(100, 99999)) / 100,
        attributes={
            "sku": f"P-{number:06}",
            "colour": chance.choice(COLOURS),
            "size": str(chance.randint(1, 60)),
            "discontinued": chance.choice([None, "2026"]),
        },
        labels=chance.sample(LABELS, chance.randint(0, 4)),
        status=chance.choice(list(Status)),
        dimensions=chance.choice([None, dimensions(chance)]),
        valid=chance.choice([None, days(chance)]),
        stored_at=chance.choice([None, None, Range(2.0, 8.0), Range(None, -18.5)]),
    )
    made.prove()
    return made


def dimensions(chance: random.Random) -> Dimensions:
    lengths = [Decimal(chance.randint(1, 99999)) / 100 for _ in range(3)]
    return Dimensions.parse([*lengths, chance.choice(list(Unit))])


def days(chance: random.Random) -> DateRange:
    """Make up from when to when a product is sold, some without an end."""
    first = date(2026, 1, 1) + timedelta(days=chance.randint(0, 364))
    return DateRange(first, chance.choice([None, first + timedelta(days=365)]))
