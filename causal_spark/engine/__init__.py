"""Read, check, pack, plan, run and stage groups. Knows tasks and tables, no statistics."""
