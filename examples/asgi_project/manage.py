#!/usr/bin/env python
"""Django's command line for the example."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "asgi_project.settings")
    from asgi_project.pools import close_pools_at_exit
    from django.core.management import execute_from_command_line

    close_pools_at_exit()
    execute_from_command_line(sys.argv)
