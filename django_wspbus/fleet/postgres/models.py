"""The tables of a fleet. The engine reads and writes them by queries of its own."""

from __future__ import annotations

from django.db import models


class Lease(models.Model):
    fleet = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    holder = models.TextField()
    token = models.BigIntegerField()
    beat = models.BigIntegerField()

    class Meta:
        db_table = "wspbus_fleet_lease"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["fleet", "name"], name="wspbus_fleet_lease_name"),
            # A lock FOR KEY SHARE stops an update of the columns of a constraint, and no other: so a fenced
            # transaction keeps the lease from being taken, and not from being renewed.
            models.UniqueConstraint(fields=["fleet", "name", "token"], name="wspbus_fleet_lease_token"),
        ]

    def __str__(self) -> str:
        return f"{self.fleet}: {self.name}"


class Member(models.Model):
    fleet = models.CharField(max_length=200)
    member = models.CharField(max_length=32)
    seen = models.FloatField()
    data = models.TextField()

    class Meta:
        db_table = "wspbus_fleet_member"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["fleet", "member"], name="wspbus_fleet_member_id")]

    def __str__(self) -> str:
        return f"{self.fleet}: {self.member}"


class Run(models.Model):
    fleet = models.CharField(max_length=200)
    job = models.CharField(max_length=255)
    tick = models.FloatField()
    data = models.TextField()

    class Meta:
        db_table = "wspbus_fleet_run"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["fleet", "job"], name="wspbus_fleet_run_job")]

    def __str__(self) -> str:
        return f"{self.fleet}: {self.job}"
