from django.urls import path

from . import views

urlpatterns = [
    path("", views.book_list, name="books"),
    path("books.json", views.book_list_json, name="books-json"),
    path("books/<int:pk>/", views.book_detail, name="book"),
    path("books/<int:pk>/price/", views.change_price, name="change-price"),
    path("books/<int:pk>/prices.json", views.prices_json, name="prices-json"),
    path("processes/", views.processes, name="processes"),
    path("processes/renew/", views.renew, name="renew"),
    path("processes.json", views.processes_json, name="processes-json"),
]
