from __future__ import annotations

import pytest

from django_wspbus.development.watching import mounts
from django_wspbus.development.watching.mounts import Mount, Mounts

TABLE = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:20 / /proc rw - proc proc rw
30 22 0:41 / /mnt/c rw shared:2 - 9p C:\\134 rw
31 30 0:42 / /mnt/c/fast rw - ext4 /dev/sdb rw
32 22 0:43 / /srv/two\\040words rw - nfs4 host:/ rw
33 22 0:44 / /srv/twice rw - nfs4 host:/ rw
34 33 0:45 / /srv/twice rw - tmpfs tmpfs rw
nonsense
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "MOUNTS", path)
    return path


@pytest.mark.parametrize(
    ("folder", "silent"),
    [
        ("/", None),
        ("/srv/shop", None),
        ("/mnt/c", "/mnt/c (9p)"),
        ("/mnt/c/shop/views", "/mnt/c (9p)"),
        ("/mnt/cd", None),
        ("/mnt/c/fast/shop", None),
        ("/srv/two words/shop", "/srv/two words (nfs4)"),
        ("/srv/twice", None),
    ],
)
def test_a_folder_raises_no_events_if_the_mount_that_it_is_on_does_not(table, folder, silent):
    found = Mounts().silent(folder)
    assert (found and str(found)) == silent


def test_a_link_is_followed(table, tmp_path):
    link = tmp_path / "shop"
    link.symlink_to("/mnt/c/shop")
    assert str(Mounts().silent(str(link))) == "/mnt/c (9p)"


@pytest.mark.parametrize(
    ("kind", "is_silent"),
    [
        *((kind, True) for kind in ("nfs", "cifs", "smb3", "9p", "virtiofs", "fuse", "fuse.sshfs", "vboxsf")),
        *((kind, False) for kind in ("ext4", "btrfs", "xfs", "overlay", "tmpfs", "fuseblk", "zfs")),
    ],
)
def test_network_and_shared_file_systems_raise_no_events_and_local_ones_do(kind, is_silent):
    assert Mount("/", kind).is_silent is is_silent


def test_a_system_without_a_list_of_mounts_has_no_such_mounts(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "absent")
    assert Mounts().silent("/") is None
