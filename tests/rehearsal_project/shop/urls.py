from django.db import connection
from django.http import JsonResponse
from django.urls import path

from .models import Order


def orders(request):
    found = list(Order.objects.order_by("pk").values("attrs", "tags"))
    return JsonResponse({"version": connection.pg_version // 10000, "orders": found})


urlpatterns = [path("", orders)]
