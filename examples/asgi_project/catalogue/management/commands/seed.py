"""``manage.py seed``: fill the catalogue."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from catalogue.models import Product, proof_of

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
    attributes = {
        "sku": f"P-{number:06}",
        "colour": chance.choice(COLOURS),
        "size": str(chance.randint(1, 60)),
        "discontinued": chance.choice([None, "2026"]),
    }
    labels = chance.sample(LABELS, chance.randint(0, 4))
    return Product(
        name=f"Product {number}",
        price=Decimal(chance.randint(100, 99999)) / 100,
        attributes=attributes,
        labels=labels,
        proof=proof_of(attributes=attributes, labels=labels),
    )
