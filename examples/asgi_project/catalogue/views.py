"""One catalogue, read and written in the three ways an ASGI project has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from asgi_project import async_pool
from django.db import transaction
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View

from .models import Product, ProductQuerySet
from .transactions import aatomic

PAGE = 10


@transaction.non_atomic_requests
def health(request: HttpRequest) -> JsonResponse:
    """Tell that the process is up; the database is not asked."""
    return JsonResponse({"pid": os.getpid()})


class ProductList(View):
    """The sync ORM. A list goes without the labels, as lists often do."""

    def get(self, request: HttpRequest) -> JsonResponse:
        return answer(summary(row) for row in page(request))

    def post(self, request: HttpRequest) -> JsonResponse:
        product = Product.objects.create(**json.loads(request.body))
        return answer([detail(reread().get(pk=product.pk))], status=201)


class ProductDetail(View):
    """The sync ORM, one product with everything."""

    def get(self, request: HttpRequest, pk: int) -> JsonResponse:
        try:
            return answer([detail(reread().get(pk=pk))])
        except Product.DoesNotExist:
            raise Http404 from None

    def post(self, request: HttpRequest, pk: int) -> JsonResponse:
        product = Product.objects.select_for_update().get(pk=pk)
        change(product, json.loads(request.body))
        product.save()
        return answer([detail(reread().get(pk=pk))])


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class AsyncProductList(View):
    """The async ORM."""

    async def get(self, request: HttpRequest) -> JsonResponse:
        async with aatomic():
            return answer([summary(row) async for row in page(request)])

    async def post(self, request: HttpRequest) -> JsonResponse:
        async with aatomic():
            product = await Product.objects.acreate(**json.loads(request.body))
            return answer([detail(await reread().aget(pk=product.pk))], status=201)


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class AsyncProductDetail(View):
    """The async ORM, one product with everything."""

    async def get(self, request: HttpRequest, pk: int) -> JsonResponse:
        async with aatomic():
            try:
                return answer([detail(await reread().aget(pk=pk))])
            except Product.DoesNotExist:
                raise Http404 from None

    async def post(self, request: HttpRequest, pk: int) -> JsonResponse:
        async with aatomic():
            product = await Product.objects.select_for_update().aget(pk=pk)
            change(product, json.loads(request.body))
            await product.asave()
            return answer([detail(await reread().aget(pk=pk))])


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class RawProductList(View):
    """Raw SQL over psycopg's own async connections: no ORM, no thread."""

    QUERY = """
        SELECT id, name, attributes, labels, proof,
               current_setting('server_version_num') AS server
          FROM catalogue_product WHERE id > %s ORDER BY id LIMIT %s
    """

    async def get(self, request: HttpRequest) -> JsonResponse:
        # One transaction: it begins with the query and ends with the block.
        async with async_pool.connection() as connection:
            cursor = await connection.execute(self.QUERY, [after(request), PAGE])
            return answer([row async for row in cursor])


def after(request: HttpRequest) -> int:
    return int(request.GET.get("after", "0"))


def reread() -> ProductQuerySet:
    return Product.objects.with_server()


def page(request: HttpRequest) -> ProductQuerySet:
    rows = reread().filter(pk__gt=after(request)).defer("labels")
    return rows.order_by("pk")[:PAGE]


def change(product: Product, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(product, name, value)


def summary(product: Any) -> dict[str, Any]:
    return {
        "id": product.pk,
        "name": product.name,
        "price": str(product.price),
        "attributes": product.attributes,
        "proof": product.proof,
        "server": product.server,
    }


def detail(product: Any) -> dict[str, Any]:
    return {**summary(product), "labels": product.labels}


def answer(rows: Iterable[dict[str, Any]], status: int = 200) -> JsonResponse:
    return JsonResponse({"pid": os.getpid(), "products": list(rows)}, status=status)
