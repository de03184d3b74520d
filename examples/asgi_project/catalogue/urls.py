from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from . import views

urlpatterns = [
    path("health/", views.health),
    # An API that looks at no cookie: nothing to forge.
    path("products/", csrf_exempt(views.ProductList.as_view())),
    path("products/<int:pk>/", csrf_exempt(views.ProductDetail.as_view())),
    path("async/products/", csrf_exempt(views.AsyncProductList.as_view())),
    path("async/products/<int:pk>/", csrf_exempt(views.AsyncProductDetail.as_view())),
    path("raw/products/", views.RawProductList.as_view()),
    path("products/changes/", views.changes),
]
