"""The links of the chains, one file a step, told in plain words.

Celery is a skin here: a link receives a run id, and nothing else. What it works on it finds in the configuration, the
ledger and the spool. `step.py` holds the mechanics that all links share (leases, retries, progress, failure).
"""
