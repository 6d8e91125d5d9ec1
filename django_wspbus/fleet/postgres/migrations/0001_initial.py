from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fleet", models.CharField(max_length=200)),
                ("name", models.CharField(max_length=200)),
                ("holder", models.TextField()),
                ("token", models.BigIntegerField()),
                ("beat", models.BigIntegerField()),
            ],
            options={
                "db_table": "wspbus_fleet_lease",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("fleet", "name"), name="wspbus_fleet_lease_name"),
                    models.UniqueConstraint(
                        fields=("fleet", "name", "token"), name="wspbus_fleet_lease_token"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Member",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fleet", models.CharField(max_length=200)),
                ("member", models.CharField(max_length=32)),
                ("seen", models.FloatField()),
                ("data", models.TextField()),
            ],
            options={
                "db_table": "wspbus_fleet_member",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("fleet", "member"), name="wspbus_fleet_member_id")
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fleet", models.CharField(max_length=200)),
                ("job", models.CharField(max_length=255)),
                ("tick", models.FloatField()),
                ("data", models.TextField()),
            ],
            options={
                "db_table": "wspbus_fleet_run",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=("fleet", "job"), name="wspbus_fleet_run_job")
                ],
            },
        ),
    ]
