"""The prices of books, in the memory of each process. A change in one of them shows in all."""

import threading
import time

from django.db.models.signals import post_save
from django.dispatch import receiver

from django_wspbus import bus

from .models import Book

LIFETIME = 60.0
"""Seconds for which a price is kept: a message about its change can be lost."""


class Prices:
    """A cache that reads a price from the database when it does not know it."""

    def __init__(self):
        self._prices = {}
        self._changes = 0
        self._lock = threading.Lock()

    def get(self, pk):
        """Return the price of a book."""
        with self._lock:
            price, until = self._prices.get(pk, (None, 0.0))
            changes = self._changes
        if time.monotonic() < until:
            return price
        price = Book.objects.values_list("price", flat=True).get(pk=pk)
        with self._lock:
            if changes == self._changes:  # else it may have been read before the change
                self._prices[pk] = price, time.monotonic() + LIFETIME
        return price

    def forget(self, pk):
        """Forget the price of a book."""
        with self._lock:
            self._changes += 1
            self._prices.pop(pk, None)

    def forget_all(self):
        """Forget all prices."""
        with self._lock:
            self._changes += 1
            self._prices.clear()


prices = Prices()


@receiver(post_save, sender=Book)
def announce_change(instance, **kwargs):
    bus.broadcast("catalogue.changed", instance.pk, on_commit=True)


@bus.subscribe("catalogue.changed")
def forget_price(pk):  # in each process of each site
    prices.forget(pk)


@bus.subscribe("fleet.gap")
def forget_prices(sender, missed):  # in each process that has missed messages
    prices.forget_all()


@bus.subscribe("catalogue.price")
def price_here(pk):  # in each process, as the answer to bus.ask
    return str(prices.get(pk))
