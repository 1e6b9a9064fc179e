"""Reads files and in-memory tables into typed columns, and rejects and reports unreadable rows."""
