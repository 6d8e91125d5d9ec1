from decimal import Decimal

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0002_first_books")]
    operations = [
        migrations.AddField(
            model_name="book",
            name="price",
            field=models.DecimalField(decimal_places=2, default=Decimal("12.00"), max_digits=6),
        ),
    ]
