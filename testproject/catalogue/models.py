import contextlib
import os
from decimal import Decimal

from django.db import DatabaseError, connection, models
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from django_wspbus import Refusal, bus


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.ForeignKey(Author, on_delete=models.PROTECT, related_name="books")
    year = models.PositiveSmallIntegerField()
    price = models.DecimalField(max_digits=6, decimal_places=2, default=Decimal("12.00"))

    class Meta:
        ordering = ["title"]
        constraints = [models.UniqueConstraint(fields=["title", "author"], name="title_of_author")]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("book", args=[self.pk])


class ProcessEvents(models.Manager):
    def note(self, what):
        """Count that this process did something."""
        now = timezone.now()
        role = " + ".join(sorted(bus.roles))
        with _refusal_if_not_migrated():
            self.update_or_create(
                pid=os.getpid(),
                what=what,
                defaults={"count": F("count") + 1, "last": now},
                create_defaults={"role": role, "first": now, "last": now},
            )

    def forget_last_run(self):
        with _refusal_if_not_migrated():
            self.all().delete()


class ProcessEvent(models.Model):
    """An action of a process of the site, and how often it happened since the site started."""

    pid = models.PositiveIntegerField("process")
    role = models.CharField(max_length=20)
    what = models.CharField(max_length=50)
    count = models.PositiveIntegerField(default=1)
    first = models.DateTimeField()
    last = models.DateTimeField()

    objects = ProcessEvents()

    class Meta:
        ordering = ["first", "pk"]
        constraints = [models.UniqueConstraint(fields=["pid", "what"], name="one_row_counts")]

    def __str__(self):
        return f"{self.what} in {self.pid} ({self.role}): {self.count}"


note = ProcessEvent.objects.note


@contextlib.contextmanager
def _refusal_if_not_migrated():
    """Raise a Refusal that names the remedy if the database has no tables."""
    try:
        yield
    except DatabaseError:
        if ProcessEvent._meta.db_table in connection.introspection.table_names():
            raise
        raise Refusal("The database has no tables yet: run `manage.py migrate`.") from None
