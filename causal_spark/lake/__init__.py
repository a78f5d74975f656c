"""Result tables in Delta Lake: schemas, locations, idempotent writes, run records."""
