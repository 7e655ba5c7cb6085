"""Fuzzing: what a server sends is changed at random, and the client must take it as its contract says.

- what is fuzzed: ``_lane`` (the fast lane against the core alone), ``_session`` (the whole client), ``_upgrade``
  (the opening handshake)
- what is sent: ``_frames`` (streams of frames), ``_conversations``, ``_responses``, ``_mutation`` (changes to any bytes)
- how: ``_target`` (what a target is), ``_run`` (many inputs), ``_shrink`` (make an input that fails small),
  ``_guided`` (by coverage, with atheris)
- what was found: ``_kept`` (inputs that once failed), ``_planted`` (bugs to find)

``python -m tests.fuzz --help`` says how to run it. An input is bytes and nothing else, whatever the target.
"""
