from django.apps import AppConfig


class WarehouseConfig(AppConfig):
    name = "tests.inner.warehouse"
    label = "warehouse"
