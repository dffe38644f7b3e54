"""The console's HTTP side: a page for people, an API and metrics for programs, and an address for somebody else's cron.

| module | decides |
|---|---|
| `application` | which address leads where, and what every answer says to a browser |
| `login` | who gets in |
| `answers` | how answers and errors look as JSON |
| `health` | whether all is well, for monitors and probes |
| `cron` | how a backup is begun from outside |
| `records` | backups and runs |
| `metrics` | numbers for Prometheus |
| `openapi` | the description of all that |
| `serve` | how it listens, and ends |
"""
