"""The style sheet of a report of evidence: light and dark, narrow and wide, and on paper."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

SHEET: Final = """
:root {
  color-scheme: light dark;
  --page: #f6f7f8; --card: #fff; --ink: #1c2430; --soft: #5a6573; --rule: #d9dee4;
  --good: #1f7a4d; --bad: #b42318; --warn: #8a5a00; --line: #2458b8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b212a; --ink: #e6eaf0; --soft: #9aa6b5; --rule: #333d4a;
    --good: #4cc38a; --bad: #ff7a6e; --warn: #e5b454; --line: #7aa7ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 96rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 48rem; }
.soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
b.good, b.bad, b.warn { font-weight: 600; }
code { font: .88em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.numbers div { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .6rem .8rem; }
.numbers dt { color: var(--soft); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers dd small { display: block; font-size: .8rem; font-weight: 400; }
.numbers small { color: var(--soft); } .numbers small.bad { color: var(--bad); }
.wide, figure {
  margin: .6rem 0; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem;
}
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .7rem; color: var(--soft); }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border-top: 1px solid var(--rule); }
th { font-weight: 600; overflow-wrap: normal; }
td { overflow-wrap: break-word; }
td.when, td.number { white-space: nowrap; }
th.number, td.number { text-align: right; }
td.some { min-width: 6rem; }
td.text { min-width: 10rem; overflow-wrap: anywhere; }
td.hash { min-width: 9rem; overflow-wrap: anywhere; }
td ul { margin: 0; padding-left: 1.1rem; }
figure { padding: .6rem; max-width: 52rem; }
figcaption { font-size: .85rem; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .6rem; }
.charts figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--soft); }
svg text.end { text-anchor: end; }
svg .axis { stroke: var(--rule); }
svg rect.good { fill: var(--good); } svg rect.bad { fill: var(--bad); }
svg .line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
svg .dot { fill: var(--line); } svg .dot.bad { fill: var(--bad); }
svg .limit { stroke: var(--warn); stroke-width: 1.5; stroke-dasharray: 6 4; }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--rule); color: var(--soft); }
@media (max-width: 40rem) {
  body { padding: 1rem .7rem 3rem; }
  h1 { font-size: 1.35rem; }
  svg text { font-size: 20px; }
  .numbers { grid-template-columns: repeat(2, 1fr); }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb;
    --good: #1f7a4d; --bad: #b42318; --warn: #8a5a00; --line: #2458b8;
  }
  @page { size: A4 landscape; margin: 12mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; border: 0; }
  table { font-size: 7.5pt; }
  th { white-space: normal; }
  td, td.some, td.text, td.hash { min-width: 0; overflow-wrap: anywhere; }
  thead { display: table-header-group; }
  tr, figure, .numbers div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; }
}
"""

#: What a browser may do with a report: apply this one style sheet. Nothing is loaded, sent or run.
POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(SHEET.encode()).digest()).decode()}'"
)
