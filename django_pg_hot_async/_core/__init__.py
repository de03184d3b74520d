"""What is done for psycopg connections, whoever opened them. Django is not known here."""
