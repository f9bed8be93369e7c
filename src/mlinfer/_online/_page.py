"""A page to try the model on: one file, nothing from elsewhere, and nothing in it that could run but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

HTML = "text/html; charset=utf-8"
STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 44rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
label { display: grid; grid-template-columns: 1fr; gap: .2rem; margin: .7rem 0; overflow-wrap: anywhere }
small { opacity: .75 }
h1 small { font-size: 1rem; font-weight: 400 }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem }
input, select, textarea, button { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem .6rem }
input, select, textarea, button, pre { border: 1px solid light-dark(#767676, #8a8d93); border-radius: .35rem }
button { margin-top: 1rem; padding: .4rem 1.2rem; cursor: pointer; font-weight: 600 }
button { background: light-dark(#1f5fbf, #8ab8ff); color: light-dark(#fff, #131416); border-color: transparent }
pre { margin: 0; min-height: 3rem; padding: .7rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere }
@media (min-width: 40rem) { label { grid-template-columns: 16rem 1fr; align-items: center } button { width: auto } }
"""
SCRIPT = """
const form = document.querySelector("form"), answer = document.querySelector("pre");
/** A field a line, without reading it: a large integer keeps its digits. */
function laidOut(text) {
  const open = [], line = () => "\\n" + "  ".repeat(open.filter((one) => one === "{").length);
  return text.replace(/"(?:[^"\\\\]|\\\\.)*"|[{}[\\],:]/g, (token) => {
    if (token === "]") open.pop();
    if (token === "}") return open.pop() && line() + token;
    if (token === "{" || token === "[") open.push(token);
    if (token === "{" || (token === "," && open.at(-1) === "{")) return token + line();
    return token === ":" || token === "," ? token + " " : token;
  });
}
function said(field) {
  if (!field.dataset.text) {
    try {
      JSON.parse(field.value);
      return field.value;
    } catch { /* as a text: the server says what is wrong with which field, and not with the whole */ }
  }
  return JSON.stringify(field.value);
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const record = [];
  for (const field of form.querySelectorAll("[data-name]")) {
    if (field.value.trim() === "") continue;
    record.push(JSON.stringify(field.dataset.name) + ": " + said(field));
  }
  try {
    const headers = {"Content-Type": "application/json"}, body = "{" + record.join(", ") + "}";
    const response = await fetch("predict", {method: "POST", headers, body});
    answer.textContent = response.status + " " + response.statusText + "\\n" + laidOut(await response.text());
  } catch (error) {
    answer.textContent = String(error);
  }
});
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title} <small>{version}</small></h1>
<p>A field that is left empty has no value. What may be sent: <a href="openapi.json">openapi.json</a></p>
<form>
{fields}
<button>Answer</button></form>
<h2>Answer</h2><pre aria-live="polite"></pre>
<script>{script}</script></body></html>
"""


def page(title: str, version: str, record: dict[str, Any], example: dict[str, Any] | None) -> bytes:
    """The page for a model; `record` is the JSON Schema of its records, `example` fills the form."""
    fields = [
        _field(name, schema, (example or {}).get(name), required=name in record["required"])
        for name, schema in record["properties"].items()
    ]
    texts = {"title": escape(title), "version": escape(version), "fields": "\n".join(fields)}
    return PAGE.format(**texts, style=STYLE, script=SCRIPT).encode()


def policy() -> tuple[str, ...]:
    """Header lines: the page may run its own script, ask its own server, and nothing else."""
    rules = {
        "default-src": "'none'", "style-src": f"'{_digest(STYLE)}'", "script-src": f"'{_digest(SCRIPT)}'",
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    said = "; ".join(f"{what} {where}" for what, where in rules.items())
    return (
        f"Content-Security-Policy: {said}",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
    )


def _field(name: str, schema: dict[str, Any], value: Any, *, required: bool) -> str:
    kind = schema.get("type", "")
    kind = kind[0] if isinstance(kind, list) else kind
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    what = f"{kind or schema.get('description', '')}{'' if required else ', may be empty'}"
    label = f"<span>{escape(name)} <small>{escape(what)}</small></span>"
    return f"<label>{label}{_control(name, kind, text)}</label>"


def _control(name: str, kind: str, text: str) -> str:
    data = f'data-name="{escape(name)}"'
    if kind == "boolean":
        options = "".join(
            f"<option{' selected' if one == text else ''}>{one}</option>" for one in ("", "true", "false")
        )
        return f"<select {data}>{options}</select>"
    if kind in {"array", "object"}:
        return f"<textarea {data} rows=2>{escape(text)}</textarea>"
    if kind in {"integer", "number"}:
        return f'<input {data} inputmode=decimal value="{escape(text)}">'
    return f'<input {data} data-text=1 value="{escape(text)}">'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
