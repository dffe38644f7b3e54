#!/bin/sh
# Makes what is missing in ./secrets for docker-compose.yml, and leaves what is there as it is.
#
#   sh deploy/secrets.sh          asks for the address of the database
#   sh deploy/secrets.sh demo     takes the database and the bucket of the profile `demo`
#
# Compose hands the files over as they are, to users of several numbers: the folder, not the files, keeps others out.
set -eu
cd "$(dirname "$0")/.."

mkdir -p secrets
chmod 700 secrets
umask 022

# Letters and digits only: they stand in addresses as they are.
random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# What Docker has made in the place of a file that was missing is an empty folder.
keep() {
    rmdir "secrets/$1.txt" 2>/dev/null || true
    if [ -s "secrets/$1.txt" ]; then
        cat >/dev/null
    else
        cat >"secrets/$1.txt"
        echo "secrets/$1.txt is new"
    fi
}

held() {
    cat "secrets/$1.txt"
}

for name in redis_password ledger_password console_password cron_secret sample_password; do
    random | keep "$name"
done
echo "redis://:$(held redis_password)@redis:6379/0" | keep redis_url
echo "postgresql://larder:$(held ledger_password)@ledger/larder" | keep ledger_url

if [ "${1:-}" = demo ]; then
    echo "postgresql://shop:$(held sample_password)@sample/shop" | keep database_url
    case $(held database_url) in
    *@sample/shop) ;;
    *)
        echo "secrets/database_url.txt is not the sample's, and the demo would back it up every five minutes" >&2
        echo "HINT: move it away while you try the demo" >&2
        exit 1
        ;;
    esac
    # Without a bucket, what stands there is a remark and nothing else.
    if [ -f secrets/aws_credentials.txt ] && ! grep -qv '^#' secrets/aws_credentials.txt; then
        rm secrets/aws_credentials.txt
    fi
    key=$(random)
    printf '[default]\naws_access_key_id = larder\naws_secret_access_key = %s\n' "$key" | keep aws_credentials
    # As the credentials are that were there before, if they were.
    key=$(sed -n 's/^aws_secret_access_key *= *//p' secrets/aws_credentials.txt)
    printf '{"identities": [{"name": "larder", "credentials": [{"accessKey": "larder", "secretKey": "%s"}],
 "actions": ["Read", "Write", "List", "Tagging", "Admin"]}]}\n' "$key" | keep s3_config
fi

if [ ! -s secrets/database_url.txt ]; then
    printf 'address of the database, as postgresql://user:password@host/name: ' >&2
    read -r url
    printf '%s\n' "$url" | keep database_url
fi
echo '# [default] with aws_access_key_id and aws_secret_access_key, where there is a bucket' | keep aws_credentials
