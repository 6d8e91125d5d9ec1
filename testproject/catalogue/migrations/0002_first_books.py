from django.db import migrations

BOOKS = [
    ("Jane Austen", "Emma", 1815),
    ("Jane Austen", "Persuasion", 1817),
    ("Charlotte Brontë", "Jane Eyre", 1847),
    ("Miguel de Cervantes", "Don Quixote", 1605),
    ("Nikolai Gogol", "Dead Souls", 1842),
    ("Herman Melville", "Moby-Dick", 1851),
    ("Mary Shelley", "Frankenstein", 1818),
    ("Mary Shelley", "The Last Man", 1826),
    ("Jules Verne", "Twenty Thousand Leagues Under the Seas", 1870),
]


def add_books(apps, schema_editor):
    authors, books = (apps.get_model("catalogue", name).objects for name in ("Author", "Book"))
    for name, title, year in BOOKS:
        author, _ = authors.get_or_create(name=name)
        books.create(author=author, title=title, year=year)


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]
    operations = [migrations.RunPython(add_books, migrations.RunPython.noop)]
