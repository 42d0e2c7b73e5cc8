"""The front door: one aiohttp application, its routes and its command line."""
