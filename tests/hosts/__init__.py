"""Every web server of deploy/hosts, asked the same, mounted at / and at /api, beside a site of its own.

    pytest tests/hosts [--build DIR] [-k "nginx and api"]

servers.py starts them; conftest.py asks, and prints the matrix of what was seen at the end.
"""
