"""Measures Postroom beside Postfix and Dovecot in one run: ``make bench``."""
