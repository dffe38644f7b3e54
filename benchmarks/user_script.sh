#!/usr/bin/env bash
# The user's backup-database.sh, as their document has it: PostgreSQL or SQLite, gzip, sha256sum, rotation by find.
# DATABASE_URL says which database; a password comes by PGPASSWORD, so that no argument list holds it.
set -euo pipefail

BACKUP_DIR=${BACKUP_DIR:-./backups}
RETENTION=${BACKUP_RETENTION_DAYS:-30}
TIMESTAMP=$(date -u +%Y%m%d_%H%M%S)

info() { echo "[INFO] $*"; }

mkdir -p "$BACKUP_DIR"
info "Starting database backup at $TIMESTAMP"
case $DATABASE_URL in
postgres*)
    artifact=$BACKUP_DIR/backup_postgres_$TIMESTAMP.sql.gz
    pg_dump "$DATABASE_URL" | gzip >"$artifact"
    ;;
*)
    copy=$BACKUP_DIR/backup_sqlite_$TIMESTAMP.db
    sqlite3 "${DATABASE_URL#sqlite:///}" ".backup '$copy'"
    gzip "$copy"
    artifact=$copy.gz
    ;;
esac
info "Backup created: $artifact"
info "Backup size: $(du -h "$artifact" | cut -f1)"
sha256sum "$artifact" >"$artifact.sha256"
info "Checksum created: $artifact.sha256"
info "Rotating old backups (keeping last $RETENTION days)..."
find "$BACKUP_DIR" -name "backup_*" -mtime "+$RETENTION" -delete
info "Backup completed successfully!"
