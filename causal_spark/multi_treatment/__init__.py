"""Effects of each of several treatments for each row, from observational data."""
