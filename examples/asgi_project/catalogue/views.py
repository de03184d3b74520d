"""One catalogue, read and written in the ways an ASGI project has."""

from __future__ import annotations

import os
from typing import Any

from asgi_project import async_pool
from django.db import transaction
from django.http import (
    Http404,
    HttpRequest,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views import View

from . import stream
from .models import Product
from .requests import ROWS, Page, answer, detail, fill, summary
from .transactions import aatomic


def health(request: HttpRequest) -> JsonResponse:
    """Tell that the process is up; the database is not asked."""
    return JsonResponse({"pid": os.getpid()})


class ProductList(View):
    """The sync ORM."""

    def get(self, request: HttpRequest) -> JsonResponse:
        return answer(summary(row) for row in Page.of(request).rows())

    def post(self, request: HttpRequest) -> JsonResponse:
        product = Product()
        fill(product, request.body)
        product.save()
        return answer([detail(reread().get(pk=product.pk))], status=201)


class ProductDetail(View):
    """The sync ORM, one product with everything."""

    def get(self, request: HttpRequest, pk: int) -> JsonResponse:
        try:
            return answer([detail(reread().get(pk=pk))])
        except Product.DoesNotExist:
            raise Http404 from None

    @transaction.atomic
    def post(self, request: HttpRequest, pk: int) -> JsonResponse:
        try:
            product = Product.objects.select_for_update().get(pk=pk)
        except Product.DoesNotExist:
            raise Http404 from None
        fill(product, request.body)
        product.save()
        return answer([detail(reread().get(pk=pk))])


class AsyncProductList(View):
    """The async ORM."""

    async def get(self, request: HttpRequest) -> JsonResponse:
        return answer([summary(row) async for row in Page.of(request).rows()])

    async def post(self, request: HttpRequest) -> JsonResponse:
        product = Product()
        fill(product, request.body)
        await product.asave()
        return answer([detail(await reread().aget(pk=product.pk))], status=201)


class AsyncProductDetail(View):
    """The async ORM, one product with everything."""

    async def get(self, request: HttpRequest, pk: int) -> JsonResponse:
        try:
            return answer([detail(await reread().aget(pk=pk))])
        except Product.DoesNotExist:
            raise Http404 from None

    async def post(self, request: HttpRequest, pk: int) -> JsonResponse:
        async with aatomic():
            try:
                product = await Product.objects.select_for_update().aget(pk=pk)
            except Product.DoesNotExist:
                raise Http404 from None
            fill(product, request.body)
            await product.asave()
            return answer([detail(await reread().aget(pk=pk))])


class RawProductList(View):
    """Raw SQL over psycopg's own async connections: no ORM, no thread."""

    QUERY = """
        SELECT id, name, price, attributes, labels, status, dimensions, valid,
               stored_at, proof, current_setting('server_version_num') AS server
          FROM catalogue_product
         WHERE id > %(after)s
           AND (%(status)s::status IS NULL OR status = %(status)s)
           AND (%(on)s::date IS NULL OR valid @> %(on)s::date)
         ORDER BY id LIMIT %(rows)s
    """

    async def get(self, request: HttpRequest) -> JsonResponse:
        page = Page.of(request)
        asked = {"after": page.after, "status": page.status, "on": page.on}
        async with async_pool.connection() as connection:
            cursor = await connection.execute(self.QUERY, {**asked, "rows": ROWS})
            return answer([row async for row in cursor])


async def changes(request: HttpRequest) -> HttpResponseBase:
    """Products as they change, for an ``EventSource``."""
    return StreamingHttpResponse(
        stream.events(request.headers.get("Last-Event-ID")),
        content_type="text/event-stream",
        # The second is for nginx: pass each event on at once.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def reread() -> Any:
    return Product.objects.with_server()
