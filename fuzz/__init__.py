"""Fuzzing: functions that judge any octets, and what runs them (``make fuzz``).

A target takes octets and fails if a parser raises, or breaks what it promises. The
octets under ``corpus/`` are tried by ``make test``, without the fuzzer.
"""
