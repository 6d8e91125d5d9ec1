"""The pages of the testproject, by Django's test client."""

import os
from decimal import Decimal

import pytest
from catalogue import jobs
from catalogue.models import Author, Book, ProcessEvent
from catalogue.prices import prices
from django.core.management import call_command
from django.urls import reverse

pytestmark = pytest.mark.django_db


@pytest.fixture
def book():
    prices.forget_all()
    return Book.objects.get(title="Frankenstein")


def test_migrations_bring_a_few_books_and_match_the_models():
    assert Book.objects.count() == 9
    call_command("makemigrations", "--check", "--dry-run", "-v0")


def test_titles_are_unique_for_an_author_but_not_beyond(book):
    other = Author.objects.get(name="Jane Austen")
    Book.objects.create(title=book.title, author=other, year=1900)

    assert str(Book(title=book.title, author=other)) == "Frankenstein"
    with pytest.raises(Exception, match="UNIQUE"):
        Book.objects.create(title=book.title, author=book.author, year=1900)


def test_the_list_shows_every_book(client):
    page = client.get("/").text

    titles = list(Book.objects.values_list("title", flat=True))
    assert titles
    assert [title for title in titles if title not in page] == []


@pytest.mark.parametrize("query", ["shelley", "FRANKEN"])
def test_a_search_finds_by_author_and_by_title(client, query):
    page = client.get("/", {"q": query}).text

    assert "Frankenstein" in page
    assert "Emma" not in page


def test_a_search_in_vain_says_so(client):
    assert "There is no such book." in client.get("/", {"q": "no book"}).text


def test_the_page_of_a_book_shows_others_of_its_author(client, book):
    page = client.get(book.get_absolute_url()).text

    assert "Mary Shelley, 1818" in page
    assert "The Last Man" in page
    assert "Emma" not in page


def test_a_book_that_does_not_exist_is_not_found(client):
    assert client.get(reverse("book", args=[0])).status_code == 404


def test_the_json_of_the_list_says_the_same(client, book):
    assert client.get("/books.json", {"q": "frankenstein"}).json() == {
        "books": [
            {"title": "Frankenstein", "author": "Mary Shelley", "year": 1818, "url": book.get_absolute_url()}
        ]
    }


def test_every_page_names_the_process_and_the_server_that_answered(client):
    page = client.get("/", SERVER_SOFTWARE="a server/1.0").text

    assert f"process <b>{os.getpid()}</b>, a server/1.0, port 80" in page


def test_pages_refuse_to_be_posted_to(client):
    assert client.post("/processes.json").status_code == 405


def test_the_admin_lists_books_and_takes_new_ones(admin_client, book):
    assert "Frankenstein" in admin_client.get(reverse("admin:catalogue_book_changelist")).text

    new = {"title": "Mathilda", "author": book.author.pk, "year": 1959, "price": "9.50"}
    assert admin_client.post(reverse("admin:catalogue_book_add"), new).status_code == 302
    assert Book.objects.get(title="Mathilda").author == book.author


def test_the_admin_shows_process_events_but_allows_no_edit(admin_client):
    ProcessEvent.objects.note("a test")
    listing = reverse("admin:catalogue_processevent_changelist")

    assert "a test" in admin_client.get(listing).text
    assert admin_client.get(reverse("admin:catalogue_processevent_add")).status_code == 403


def test_noting_the_same_again_counts():
    for _ in range(3):
        ProcessEvent.objects.note("a test")

    event = ProcessEvent.objects.get()
    assert (event.pid, event.count) == (os.getpid(), 3)
    assert event.first < event.last
    assert str(event) == f"a test in {os.getpid()} (): 3"


def test_without_a_site_the_page_of_the_processes_says_so(client):
    assert "Another program than <code>runbus</code>" in client.get("/processes/").text
    assert client.get("/processes.json").json()["site"] is None


def test_a_reload_without_a_site_says_so(client):
    page = client.post("/processes/renew/", {"what": "graceful"}, follow=True).text

    assert "This process belongs to no site" in page


def test_a_reload_runs_the_graceful_listeners(bus, client):
    ran = []
    listener = bus.subscribe("graceful", lambda: ran.append("graceful"))
    page = client.post("/processes/renew/", {"what": "graceful"}, follow=True).text
    bus.unsubscribe("graceful", listener)

    assert ran == ["graceful"]
    assert "The new code serves." in page


def test_nothing_else_can_be_renewed(client):
    assert client.post("/processes/renew/", {"what": "exit"}).status_code == 400
    assert client.get("/processes/renew/").status_code == 405


def test_listeners_run_with_the_bus(db, bus, client):
    events = client.get("/processes.json").json()["events"]

    assert [(event["what"], event["role"]) for event in events] == [
        ("start, role=site", "site + worker"),
        ("start", "site + worker"),
        ("lifespan, until yield", "site + worker"),
    ]
    assert "lifespan, until yield" in client.get("/processes/").text


def test_a_price_is_kept_until_a_message_says_that_it_has_changed(
    bus, client, book, django_capture_on_commit_callbacks
):
    assert 'value="12.00"' in client.get(book.get_absolute_url()).text
    with django_capture_on_commit_callbacks() as messages:
        assert client.post(reverse("change-price", args=[book.pk]), {"price": "7.50"}).status_code == 302
    assert 'value="12.00"' in client.get(book.get_absolute_url()).text
    for send in messages:
        send()
    assert 'value="7.50"' in client.get(book.get_absolute_url()).text
    assert client.get(reverse("prices-json", args=[book.pk])).json() == {"prices": {str(os.getpid()): "7.50"}}


def test_a_process_that_has_missed_messages_reads_all_prices_again(bus, book):
    prices.get(book.pk)
    Book.objects.update(price=8)
    assert prices.get(book.pk) == Decimal("12.00")
    bus.publish("fleet.gap", "web1:1", 1)
    assert prices.get(book.pk) == Decimal("8.00")


def test_a_price_that_is_no_number_is_refused(client, book):
    answer = client.post(reverse("change-price", args=[book.pk]), {"price": "cheap"})
    assert (answer.status_code, "Enter a number" in answer.text) == (400, True)


def test_the_job_of_the_night_removes_the_sessions_that_are_over(client):
    session = client.session
    session.set_expiry(-1)
    session.save()
    assert client.session.exists(session.session_key)
    jobs.clear_sessions()
    assert not client.session.exists(session.session_key)
