"""Files and tables in memory to typed columns; a row that cannot be read is named and rejected."""
