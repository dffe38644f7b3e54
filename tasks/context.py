"""What a process that runs or sends tasks has at hand: the settings, the ledger, the name of its spool."""

from __future__ import annotations

import functools
import os

from larder import config
from larder.config import Settings
from larder.ledger import Ledger, open_ledger
from larder.signing import Signer, host_signer
from larder.spool import host_id, make_private
from larder.trust import Trust


@functools.cache
def settings() -> Settings:
    """The configuration, read once a process; raises `ConfigurationError`."""
    return config.load()


def ledger() -> Ledger:
    """The ledger, opened once a process: a pool's children must not share their parent's connections."""
    return _ledger_of(os.getpid())


def host() -> str:
    """The name of the spool that this process works in: the one that its queue has, for as long as it lives."""
    return _host_of(settings().spool_dir)


@functools.cache
def signer() -> Signer:
    """The key that this host signs manifests with, read once a process; raises `ConfigurationError`."""
    return host_signer(settings())


def trust() -> Trust:
    """Whose signatures count: the configured signers', or else those of this ledger's own hosts."""
    return Trust(settings().signer_keys, ledger().signers.known())


_host_of = functools.cache(host_id)


@functools.lru_cache(maxsize=1)
def _ledger_of(_process: int) -> Ledger:
    found = settings()
    make_private(found.state_dir)
    return open_ledger(found.ledger_url.get_secret_value())
