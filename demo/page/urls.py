from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("events/", views.events, name="events"),
    path("press/<slug:button>/", views.press, name="press"),
    path("assets/<str:name>", views.asset, name="asset"),
]
