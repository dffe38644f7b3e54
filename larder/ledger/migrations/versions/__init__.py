"""The changes of the ledger's tables, oldest first."""
