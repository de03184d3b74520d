"""What people run: status, preflight, and what these ask servers."""
