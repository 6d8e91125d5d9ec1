from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_wspbus import SiteUnreachable, bus

from .context_processors import answered_by
from .forms import PriceForm
from .models import Book, ProcessEvent
from .prices import prices


@require_safe
def book_list(request):
    query = request.GET.get("q", "").strip()
    return render(request, "catalogue/book_list.html", {"books": find_books(query), "query": query})


@require_safe
def book_list_json(request):
    books = find_books(request.GET.get("q", "").strip())
    return JsonResponse(
        {
            "books": [
                {
                    "title": book.title,
                    "author": book.author.name,
                    "year": book.year,
                    "url": book.get_absolute_url(),
                }
                for book in books
            ]
        }
    )


@require_safe
def book_detail(request, pk):
    book = get_object_or_404(Book.objects.select_related("author").defer("price"), pk=pk)
    context = {"book": book, "price": prices.get(pk), "others": book.author.books.exclude(pk=pk)}
    return render(request, "catalogue/book_detail.html", context)


@require_POST
def change_price(request, pk):
    form = PriceForm(request.POST, instance=get_object_or_404(Book, pk=pk))
    if not form.is_valid():
        return HttpResponseBadRequest(form.errors.as_text(), content_type="text/plain; charset=utf-8")
    form.save()
    return redirect("book", pk)


@require_safe
def prices_json(request, pk):
    """Return the price of a book that each process has in its memory, or why it has none."""
    get_object_or_404(Book, pk=pk)
    replies = bus.ask("catalogue.price", pk, timeout=5)
    return JsonResponse({"prices": {reply.pid: reply.result or reply.error for reply in replies}})


@require_safe
def processes(request):
    context = {"site": site_status(), "events": ProcessEvent.objects.all()}
    return render(request, "catalogue/processes.html", context)


@require_POST
def renew(request):
    """Reload or restart the site, from the process that answers this request."""
    what = request.POST.get("what")
    if what not in ("graceful", "restart"):
        return HttpResponseBadRequest("It takes what=graceful or what=restart.")
    try:
        getattr(bus.site, what)()
    except (RuntimeError, SiteUnreachable) as error:
        messages.error(request, error)
    else:
        messages.success(request, "The new code serves." if what == "graceful" else "The site restarts.")
    return redirect("processes")


@require_safe
def processes_json(request):
    fields = ["what", "pid", "role", "count", "first", "last"]
    events = list(ProcessEvent.objects.values(*fields))
    return JsonResponse({**answered_by(request), "site": site_status(), "events": events})


def find_books(query):
    books = Book.objects.select_related("author")
    return books.filter(Q(title__icontains=query) | Q(author__name__icontains=query)) if query else books


def site_status():
    """Return the status of the site; None where another program than ``runbus`` serves."""
    try:
        return bus.site.status()
    except SiteUnreachable:
        return None
