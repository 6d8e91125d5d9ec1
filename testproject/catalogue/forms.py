from django import forms

from .models import Book


class PriceForm(forms.ModelForm):
    class Meta:
        model = Book
        fields = ["price"]
