from django.urls import path

from . import views

urlpatterns = [
    path("health/", views.health),
    path("products/", views.ProductList.as_view()),
    path("products/<int:pk>/", views.ProductDetail.as_view()),
    path("async/products/", views.AsyncProductList.as_view()),
    path("async/products/<int:pk>/", views.AsyncProductDetail.as_view()),
    path("raw/products/", views.RawProductList.as_view()),
]
