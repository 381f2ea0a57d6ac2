SELECT to_regclass('prove_ledger') IS NOT NULL AND to_regclass('prove_counters') IS NOT NULL AND to_regclass('prove_history') IS NOT NULL
