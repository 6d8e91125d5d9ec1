from __future__ import annotations

from django_wspbus.development.frames import mentioned


def test_the_files_of_a_traceback_are_mentioned_once():
    text = '  File "/a.py", line 1, in f\n  | File "/b.py", line 2\n  File "/a.py", line 3, in g\n'
    assert mentioned(text + '  File "<string>", line 1, in <module>\n') == ["/a.py", "/b.py"]
