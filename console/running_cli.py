"""The commands that run Larder on a machine: everything at once, the console, keys, the catalog, completion."""

from __future__ import annotations

from pathlib import Path

import click

from console import completion
from console.root import command, main


@command("up")
def _up(*, as_json: bool) -> int:
    """Start everything on this machine; Ctrl-C ends it.

    That is Redis, a worker, beat, Flower and the console. The console is at http://127.0.0.1:8000/ ([console] in
    larder.toml), Flower at http://127.0.0.1:5555/. Backups begin by their schedules. With REDIS_URL the Redis there
    is used. One Ctrl-C has every step finished or given back, a second one ends at once.

    \b
    Example:
      DATABASE_URL=postgresql://backup@db/shop larder up
    """
    from console.up import up

    return up(as_json=as_json)


@command("console")
@click.option("--host", metavar="ADDRESS", help="Listen here, whatever larder.toml says.")
@click.option("--port", type=click.IntRange(1, 65535), help="And at this port.")
@click.option("--flower-url", metavar="URL", help="Link to Flower there, unless larder.toml says where.")
def _console(*, host: str | None, port: int | None, flower_url: str | None, as_json: bool) -> int:
    """Serve the page, the API and the metrics, until it is ended.

    For this machine only, at http://127.0.0.1:8000/, until LARDER_CONSOLE_PASSWORD is set or a proxy is configured
    that people log in at ([console] in larder.toml). With CRON_SECRET, /api/cron/backup begins backups.

    \b
    Examples:
      larder console
      LARDER_CONSOLE_PASSWORD=… larder console --host 0.0.0.0
      curl -f http://127.0.0.1:8000/api/health
    """
    from console.web.serve import serve

    return serve(host, port, flower_url, as_json=as_json)


@command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def _completion(shell: str, *, as_json: bool) -> int:
    """Print what a shell reads to complete commands and names.

    Names are those of databases, backups, runs, requests and stores that are there when Tab is pressed.

    \b
    For good:
      larder completion bash > ~/.local/share/bash-completion/completions/larder
      larder completion zsh > ~/.zsh/_larder          with ~/.zsh in fpath, before compinit
      larder completion fish > ~/.config/fish/completions/larder.fish
    """
    return completion.print_script(main, shell, as_json=as_json)


@main.group("catalog")
def _catalog() -> None:
    """Work with what the stores hold, and the ledger's record of it."""


@command("rebuild", _catalog)
@click.option("--store", metavar="NAME", help="Only from this store.")
def _rebuild(*, store: str | None, as_json: bool) -> int:
    """Take up every backup that the stores hold into this ledger.

    A new machine needs the stores' credentials and nothing else. Where nobody has configured signers and the ledger
    knows none, the keys that signed are trusted from then on, and named. Doing it twice is fine.

    \b
    Example, on a machine that has nothing yet:
      BACKUP_S3_BUCKET=my-backups larder catalog rebuild && larder verify --all
    """
    from console import rebuild

    return rebuild.rebuild_catalog(store, as_json=as_json)


@main.group("keys")
def _keys() -> None:
    """Make keys: to sign backups with, and to approve restores."""


@command("new", _keys)
@click.argument("kind", type=click.Choice(["signer", "approver"]))
@click.argument("name", metavar="NAME")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Where to; NAME.KIND.key here.")
@click.option("--no-passphrase", is_flag=True, help="Keep an approver's key in clear; a signer's always is.")
def _new_key(kind: str, name: str, *, out: Path | None, no_passphrase: bool, as_json: bool) -> int:
    """Write a new private key, and print its lines for larder.toml.

    The file can be read by its owner only. A signer is the key that a host signs manifests with; workers use it
    unattended, so it has no passphrase. An approver is the key of a person who may approve restores; it belongs on
    that person's own machine, never on a worker. NAME is what the configuration calls it.

    \b
    Examples:
      larder keys new signer web1 --out /etc/larder/web1.signer.key
      larder keys new approver alice
    """
    from console import keys

    if kind == "approver":
        return keys.new_approver(name, out, passphrase=not no_passphrase, as_json=as_json)
    return keys.new_signer(name, out, as_json=as_json)


@command("show", _keys)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="What the configuration calls it.")
def _show_key(file: Path, *, name: str, as_json: bool) -> int:
    """Print the lines for larder.toml of a key that exists already.

    Asks for no passphrase.

    \b
    Example, on a new machine:
      larder keys show alice.approver.key --name alice >> larder.toml
    """
    from console import keys

    return keys.show(file, name, as_json=as_json)
