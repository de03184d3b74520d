"""What is done for psycopg connections, whoever opened them. No Django in here."""
