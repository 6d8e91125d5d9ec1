"""The error page for browsers: one HTML document that loads nothing else."""

from __future__ import annotations

import json
import os
import re
from html import escape
from string import Template

from ..frames import FRAME
from .place import Place, find_place, is_own

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<noscript><meta http-equiv="refresh" content="2"></noscript>
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
$heading
</header>
<main>
$content
</main>
<footer id="footer"><p>$footer</p></footer>
<script>$script</script>
</body>
</html>
""")

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1d2126; --faint: #667080;
  --edge: #dcdfe3; --red: #b3261e; --wash: #fdeceb; --own: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1c2026; --ink: #e4e7eb;
  --faint: #949eac; --edge: #313740; --red: #ff8a80; --wash: #43211f; --own: #8ec2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); border-top: 5px solid var(--red);
  font: 16px/1.5 system-ui, sans-serif; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
p { margin: 0; }
.kind { color: var(--red); font-weight: 600; overflow-wrap: anywhere; }
h1 { margin: .1em 0 .5em; font-size: clamp(1.25rem, 3.5vw, 1.75rem); line-height: 1.3; font-weight: 650;
  white-space: pre-wrap; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .5rem; font-size: .95rem; font-weight: 600; color: var(--faint); }
.place { color: var(--faint); overflow-wrap: anywhere; }
.place b { color: var(--ink); }
pre { margin: 0; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; overflow-x: auto;
  padding: .75rem 0; font: .85rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; tab-size: 4; }
code { display: block; width: max-content; min-width: 100%; font: inherit; }
.source span { display: block; }
.source span, .text code, .prose code { padding: 0 1rem; }
.source { margin-top: 1.25rem; }
.source span::before { content: attr(data-number); display: inline-block; width: 3.5em; padding-right: 1.25em;
  margin-left: -1em; text-align: right; color: var(--faint); }
.source .failed { background: var(--wash); box-shadow: inset 4px 0 var(--red); font-weight: 600; }
.source .failed::before, .source .caret { color: var(--red); }
.prose code { width: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.text .own { color: var(--own); font-weight: 600; }
button { font: inherit; color: var(--own); background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline; }
footer { padding-top: 1.5rem; padding-bottom: 2.5rem; color: var(--faint); font-size: .9rem; }
@media (max-width: 40rem) { header, main, footer { padding-left: .75rem; padding-right: .75rem; }
  header { padding-top: 1.25rem; } pre { font-size: .78rem; }
  .source span, .text code, .prose code { padding: 0 .75rem; }
  .source span::before { width: 3em; padding-right: 1em; margin-left: -.75em; } }
"""

# A browser opens at most six connections to a site, so one tab waits, and notifies the others by a channel.
# An empty answer means that the program was stopped: the next one may not listen yet, so the tab asks again.
SCRIPT = Template("""
(() => {
  const wait = $wait, header = $header, isOfGet = $is_of_get;
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(wait) : null;
  const load = () => isOfGet ? location.reload() : location.replace(location.href.split("#")[0]);
  const pause = (time) => new Promise((done) => setTimeout(done, time));
  const watch = async () => {
    for (let time = 100; ; time = Math.min(time * 2, 2000)) {
      try {
        const answer = await fetch(wait, {cache: "no-store", redirect: "manual"});
        if (!answer.headers.has(header) || await answer.text() !== "") break;
      } catch (error) {}
      await pause(time);
    }
    if (channel) channel.postMessage("");
    load();
  };
  if (channel) channel.onmessage = load;
  addEventListener("pageshow", (event) => event.persisted && load());
  if (channel && navigator.locks) navigator.locks.request(wait, watch);
  else watch();
})();
""")

RELOADS = "This page reloads itself when a file of the project changes."
RETRY_BUTTON = Template("""</p>
<form method="post" action="$retry">
<p>If the cause is elsewhere: <button>start the site again</button></p>
</form>
<p>""")


def page(title: str, text: str, root: str, script: str, retry: str) -> str:
    """Return the page of an error of the project at ``root``; ``text``: a traceback, or a reason in words.

    ``retry``: the target of the POST request that starts the site again.
    """
    kind, message = _split(title)
    heading = [f'<p class="kind">{escape(kind)}</p>'] if kind else []
    heading.append(f"<h1>{escape(message)}</h1>")
    content = []
    place = find_place(text, root)
    if place is not None:
        heading.append(_place(place, root))
        content += [_source(place)] if place.lines else []
    if place is not None or "Traceback (most recent" in text:
        content.append(f'<h2>Traceback</h2>\n<pre class="text"><code>{_traceback(text, root)}</code></pre>')
    elif text.strip() not in ("", title.strip(), message.strip()):
        content.append(f'<pre class="prose"><code>{escape(text.strip())}</code></pre>')
    return PAGE.substitute(
        title=escape(title.strip().partition("\n")[0]),
        style=STYLE,
        heading="\n".join(heading),
        content="\n".join(content),
        footer=f"{RELOADS}{RETRY_BUTTON.substitute(retry=escape(retry))}",
        script=script,
    )


def page_without_details(words: str, script: str) -> str:
    """Return the page for clients that may not see the error."""
    heading = f"<h1>{escape(words)}</h1>"
    footer = "This page reloads itself."
    return PAGE.substitute(
        title="The site does not start",
        style=STYLE,
        heading=heading,
        content="",
        footer=footer,
        script=script,
    )


def reloading(wait: str, header: str, is_of_get: bool) -> str:
    """Return the script that reloads the page when the answer to the request for ``wait`` ends."""
    return SCRIPT.substitute(
        wait=json.dumps(wait), header=json.dumps(header), is_of_get=json.dumps(is_of_get)
    )


def _split(title: str) -> tuple[str, str]:
    """Return the name of the exception in a title ("" if there is none) and its message."""
    # The title of a system check may also have a colon, before the id in parentheses.
    match = re.fullmatch(r"((?:\w+\.)*\w+): (?!\([\w.]+\) )(.+)", title.strip(), re.DOTALL)
    return (match[1], match[2]) if match else ("", title.strip())


def _place(place: Place, root: str) -> str:
    path = os.path.relpath(place.path, root) if is_own(place.path, root) else place.path
    folder, name = os.path.split(path)
    folder = os.path.join(folder, "") if folder else ""
    return f'<p class="place">{escape(folder)}<b>{escape(name)}</b>, line <b>{place.number}</b></p>'


def _source(place: Place) -> str:
    lines = []
    for number, line in place.lines:
        failed = ' class="failed"' if number == place.number else ""
        lines.append(f'<span{failed} data-number="{number}">{escape(line) or " "}</span>')
        if failed and place.caret:
            lines.append(f'<span class="failed caret" data-number="">{escape(place.caret)}</span>')
    return f'<pre class="source"><code>{"".join(lines)}</code></pre>'


def _traceback(text: str, root: str) -> str:
    lines = []
    for line in text.strip("\n").split("\n"):
        match = FRAME.fullmatch(line)
        is_ours = match is not None and is_own(match[1], root)
        lines.append(f'<span class="own">{escape(line)}</span>' if is_ours else escape(line))
    return "\n".join(lines)
