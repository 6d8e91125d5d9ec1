"""A project after some years: ten apps of twenty modules each, and widely used packages."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from string import Template

from .small_project import FILES, Project, manage, written

APPS = (
    *("billing", "catalog", "customers", "inventory", "marketing"),
    *("orders", "reports", "reviews", "shipping", "support"),
)
SUBJECTS = ("article", "document", "event", "record")
"""Each has modules of models, serializers, forms and views in every app."""

DISTRIBUTIONS = {
    "allauth": "django-allauth",
    "corsheaders": "django-cors-headers",
    "crispy_forms": "django-crispy-forms",
    "debug_toolbar": "django-debug-toolbar",
    "django_extensions": "django-extensions",
    "django_filters": "django-filter",
    "drf_spectacular": "drf-spectacular",
    "environ": "django-environ",
    "import_export": "django-import-export",
    "rest_framework": "djangorestframework",
    "simple_history": "django-simple-history",
    "storages": "django-storages",
    "taggit": "django-taggit",
    "whitenoise": "whitenoise",
}
"""The modules that the project imports, with their packages."""

SETTINGS = f"""
import environ

from .small import *  # the settings of `startproject`

env = environ.Env()
SITE_ID = env.int("SITE_ID", 1)
INSTALLED_APPS += [
    "django.contrib.sites",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "corsheaders",
    "crispy_forms",
    "debug_toolbar",
    "django_extensions",
    "django_filters",
    "drf_spectacular",
    "import_export",
    "rest_framework",
    "rest_framework.authtoken",
    "simple_history",
    "storages",
    "taggit",
    *{APPS!r},
]
MIDDLEWARE = [
    "corsheaders.middleware.CorsMiddleware",
    *MIDDLEWARE[:1],
    "whitenoise.middleware.WhiteNoiseMiddleware",
    *MIDDLEWARE[1:],
    "allauth.account.middleware.AccountMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "debug_toolbar.middleware.DebugToolbarMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
REST_FRAMEWORK = {{
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}}
INTERNAL_IPS = ["127.0.0.1"]
STATIC_ROOT = BASE_DIR / "collected"
WHITENOISE_AUTOREFRESH = True
WHITENOISE_USE_FINDERS = True
"""
URLS = f"""
from debug_toolbar.toolbar import debug_toolbar_urls
from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from orders.views.article import index

urlpatterns = [
    path("", index),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema")),
    *(path(f"{{app}}/", include(f"{{app}}.urls")) for app in {APPS!r}),
    *debug_toolbar_urls(),
]
"""
MODELS = """
from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse
from simple_history.models import HistoricalRecords
from taggit.managers import TaggableManager


class ${Subject}QuerySet(models.QuerySet):
    def published(self):
        return self.filter(state=${Subject}.State.PUBLISHED)

    def with_totals(self):
        return self.annotate(total=models.Sum("lines__amount"), entries=models.Count("lines"))


class ${Subject}(models.Model):
    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        PUBLISHED = "published", "Published"
        RETIRED = "retired", "Retired"

    title = models.CharField(max_length=200)
    slug = models.SlugField(unique=True)
    text = models.TextField(blank=True)
    state = models.CharField(max_length=20, choices=State.choices, default=State.DRAFT)
    owner = models.ForeignKey("auth.User", models.PROTECT, related_name="${app}_${subject}s")
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    tags = TaggableManager(blank=True, related_name="${app}_${subject}s")
    history = HistoricalRecords()
    objects = ${Subject}QuerySet.as_manager()

    class Meta:
        ordering = ["-created"]
        indexes = [models.Index(fields=["state", "created"])]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("${app}-${subject}-detail", args=[self.pk])


class ${Subject}Line(models.Model):
    parent = models.ForeignKey(${Subject}, models.CASCADE, related_name="lines")
    position = models.PositiveIntegerField(default=0)
    text = models.CharField(max_length=200)
    amount = models.DecimalField(max_digits=9, decimal_places=2, validators=[MinValueValidator(0)])

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["parent", "position"], name="${app}_${subject}_position"),
        ]

    def __str__(self):
        return self.text
"""
SERIALIZERS = """
from rest_framework import serializers

from ${app}.models import ${Subject}, ${Subject}Line


class ${Subject}LineSerializer(serializers.ModelSerializer):
    class Meta:
        model = ${Subject}Line
        fields = ["id", "position", "text", "amount"]


class ${Subject}Serializer(serializers.ModelSerializer):
    lines = ${Subject}LineSerializer(many=True, read_only=True)
    owner = serializers.SlugRelatedField("username", read_only=True)
    total = serializers.DecimalField(max_digits=12, decimal_places=2, read_only=True)

    class Meta:
        model = ${Subject}
        fields = ["id", "title", "slug", "text", "state", "owner", "created", "changed", "lines", "total"]

    def validate_title(self, value):
        if value != value.strip():
            raise serializers.ValidationError("A title neither begins nor ends with a space.")
        return value
"""
FORMS = """
from crispy_forms.helper import FormHelper
from crispy_forms.layout import Fieldset, Layout, Submit
from django import forms

from ${app}.models import ${Subject}, ${Subject}Line


class ${Subject}Form(forms.ModelForm):
    class Meta:
        model = ${Subject}
        fields = ["title", "slug", "text", "state", "tags"]
        widgets = {"text": forms.Textarea(attrs={"rows": 10})}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.helper = FormHelper()
        self.helper.layout = Layout(Fieldset("${Subject}", *self.fields), Submit("save", "Save"))

    def clean_slug(self):
        return self.cleaned_data["slug"].lower()


class ${Subject}LineForm(forms.ModelForm):
    class Meta:
        model = ${Subject}Line
        fields = ["position", "text", "amount"]


${Subject}LineFormSet = forms.inlineformset_factory(${Subject}, ${Subject}Line, form=${Subject}LineForm)
"""
VIEWS = """
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpResponse
from django.views.generic import CreateView, DetailView, ListView, UpdateView
from rest_framework import permissions, viewsets
from rest_framework.decorators import action
from rest_framework.response import Response

from ${app}.filters import ${Subject}Filter
from ${app}.forms.${subject} import ${Subject}Form
from ${app}.models import ${Subject}
from ${app}.serializers.${subject} import ${Subject}Serializer

VERSION = "0"


def index(request):
    return HttpResponse(VERSION, content_type="text/plain")


class ${Subject}List(ListView):
    model = ${Subject}
    paginate_by = 50

    def get_queryset(self):
        return ${Subject}Filter(self.request.GET, ${Subject}.objects.published()).qs


class ${Subject}Detail(DetailView):
    model = ${Subject}


class ${Subject}Create(LoginRequiredMixin, CreateView):
    model = ${Subject}
    form_class = ${Subject}Form


class ${Subject}Update(LoginRequiredMixin, UpdateView):
    model = ${Subject}
    form_class = ${Subject}Form


class ${Subject}ViewSet(viewsets.ModelViewSet):
    queryset = ${Subject}.objects.with_totals().select_related("owner").prefetch_related("lines")
    serializer_class = ${Subject}Serializer
    permission_classes = [permissions.IsAuthenticatedOrReadOnly]
    filterset_class = ${Subject}Filter

    @action(detail=True, methods=["post"])
    def publish(self, request, pk=None):
        entry = self.get_object()
        entry.state = entry.State.PUBLISHED
        entry.save(update_fields=["state"])
        return Response(self.get_serializer(entry).data)
"""
FILTER = """

class ${Subject}Filter(django_filters.FilterSet):
    title = django_filters.CharFilter(lookup_expr="icontains")
    created = django_filters.DateFromToRangeFilter()

    class Meta:
        model = ${Subject}
        fields = ["title", "state", "owner", "created"]
"""
ADMIN = """

class ${Subject}LineInline(admin.TabularInline):
    model = ${Subject}Line


@admin.register(${Subject})
class ${Subject}Admin(ImportExportModelAdmin, SimpleHistoryAdmin):
    list_display = ["title", "state", "owner", "created"]
    list_filter = ["state", "created"]
    search_fields = ["title", "text"]
    prepopulated_fields = {"slug": ["title"]}
    inlines = [${Subject}LineInline]
"""
ROUTES = """
router.register("api/${subject}s", views.${Subject}ViewSet, basename="${app}-${subject}-api")
urlpatterns += [
    path("${subject}s/", views.${Subject}List.as_view(), name="${app}-${subject}-list"),
    path("${subject}s/new/", views.${Subject}Create.as_view(), name="${app}-${subject}-create"),
    path("${subject}s/<int:pk>/", views.${Subject}Detail.as_view(), name="${app}-${subject}-detail"),
    path("${subject}s/<int:pk>/edit/", views.${Subject}Update.as_view(), name="${app}-${subject}-update"),
]
"""
PARTS = {"models": MODELS, "serializers": SERIALIZERS, "forms": FORMS, "views": VIEWS}


def missing() -> list[str]:
    """Return the packages that are missing."""
    return [name for module, name in DISTRIBUTIONS.items() if importlib.util.find_spec(module) is None]


@contextlib.contextmanager
def large_project() -> Iterator[Project]:
    with written(large_files()) as folder:
        manage(folder, "makemigrations")
        manage(folder, "migrate")
        yield Project(folder, folder / "orders/views/article.py")


def large_files() -> dict[str, str]:
    files = {
        **FILES,
        "desk/small.py": FILES["desk/settings.py"],
        "desk/settings.py": SETTINGS,
        "desk/urls.py": URLS,
    }
    for app in APPS:
        files |= {f"{app}/{name}": text for name, text in app_files(app).items()}
    return files


def app_files(app: str) -> dict[str, str]:
    everything = "\n".join(f"from .{subject} import *" for subject in SUBJECTS)
    names = ", ".join(f"{subject.title()}, {subject.title()}Line" for subject in SUBJECTS)
    files = {
        "__init__.py": "",
        "migrations/__init__.py": "",
        "apps.py": (
            f"from django.apps import AppConfig\n\n\nclass {app.title()}(AppConfig):\n    name = {app!r}\n"
        ),
        "filters.py": f"import django_filters\n\nfrom {app}.models import {names}\n" + each(FILTER, app),
        "admin.py": (
            "from django.contrib import admin\n"
            "from import_export.admin import ImportExportModelAdmin\n"
            "from simple_history.admin import SimpleHistoryAdmin\n\n"
            f"from {app}.models import {names}\n" + each(ADMIN, app)
        ),
        "urls.py": (
            "from django.urls import include, path\n"
            "from rest_framework.routers import DefaultRouter\n\n"
            f"from {app} import views\n\n"
            "router = DefaultRouter()\n"
            "urlpatterns = []\n" + each(ROUTES, app) + 'urlpatterns += [path("", include(router.urls))]\n'
        ),
    }
    for part, text in PARTS.items():
        files[f"{part}/__init__.py"] = everything
        files |= {f"{part}/{subject}.py": fill(text, app, subject) for subject in SUBJECTS}
    return files


def each(text: str, app: str) -> str:
    return "".join(fill(text, app, subject) for subject in SUBJECTS)


def fill(text: str, app: str, subject: str) -> str:
    return Template(text).substitute(app=app, subject=subject, Subject=subject.title())
