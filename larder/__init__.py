"""What a backup is: databases, stores, codecs, the ledger, and the rules between them.

This package knows neither Celery nor a web framework. `tasks` tells its story as a chain, `workers`
runs that chain, `console` is the operator's door.
"""

__version__ = "0.1.0"
