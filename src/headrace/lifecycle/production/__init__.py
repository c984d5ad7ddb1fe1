"""What serves: approval, promotion, rollback, and that it stays what the ledger says."""
