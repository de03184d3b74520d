"""What ``manage.py pg_hot_preflight`` does.

`reading` gathers the facts of each side, `report` compares them and says what is
found, `output` writes it down.
"""
