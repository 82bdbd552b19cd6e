"""The web console: pages for people, on the same queries as the API. Never a second way to the data."""
